const zone = element.querySelector('label');
const input = element.querySelector('input');
const preview = element.querySelector('img');
const said = element.querySelector('[role=status]');

function say(words, isTrouble) {
  said.textContent = words;
  said.classList.toggle('umd-trouble', Boolean(isTrouble));
}

async function read(file) {
  props.value = '';
  preview.hidden = true;
  say(`Reading ${file.name} …`);
  try {
    const reply = await fetch('image', { method: 'POST', body: file, headers: { 'content-type': 'application/octet-stream' } });
    const found = await reply.json();
    if (found.error) return say(found.error, true);
    preview.src = found.preview;
    preview.alt = `the chosen image, ${file.name}`;
    preview.hidden = false;
    props.value = found.image;
    say(file.name);
  } catch (error) {
    say('The server does not answer, or the file is too large.', true);
  }
}

input.addEventListener('change', () => input.files.length && read(input.files[0]));
zone.addEventListener('dragover', (event) => { event.preventDefault(); zone.classList.add('umd-over'); });
zone.addEventListener('dragleave', () => zone.classList.remove('umd-over'));
zone.addEventListener('drop', (event) => {
  event.preventDefault();
  zone.classList.remove('umd-over');
  if (event.dataTransfer.files.length) read(event.dataTransfer.files[0]);
});
