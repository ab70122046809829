"""What the page shows of a reply, as HTML. All texts are escaped: a question may hold anything."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from PIL import Image

from umd import NOTICE
from umd.inference import Explanation, ImageCheck, Reply
from umd.inference.picture import FULL, shaded, strengths
from umd.web.images import as_jpeg

_MARKS_OF_TEMPLATES = {ord(mark): f"&#{ord(mark)};" for mark in "{}$`\\"}
"""What the browser's side would take for a template of its own."""

PICTURE = 448
"""Pixels along the side of a picture: a small image is enlarged smoothly."""


def escaped(text: str) -> str:
    """A text that is shown as it is, whatever it holds."""
    return html.escape(text).translate(_MARKS_OF_TEMPLATES)


def trouble(message: str) -> str:
    """What went wrong, in a line."""
    return f'<p class="umd-trouble" role="alert">{escaped(message)}</p>'


def remark(message: str) -> str:
    """What there is to do, or is being done."""
    return f'<p class="umd-remark">{escaped(message)}</p>'


def bars(reply: Reply) -> str:
    """The answers, the likeliest first, each with its probability and a bar of that length."""
    rows = [
        f'<li><span class="umd-answer">{escaped(answer.text)}</span>'
        f'<span class="umd-probability">{answer.probability:.3f}</span>'
        f'<span class="umd-bar" aria-hidden="true"><i style="width:{100 * answer.probability:.1f}%"></i></span></li>'
        for answer in reply.answers
    ]
    return f'<ol class="umd-bars" aria-label="answers with their probabilities">{"".join(rows)}</ol>'


def answered(reply: Reply, check: ImageCheck | None, where: str, truth: str = "", of_bars: str = "") -> str:
    """A reply as a reader wants it: answers, what they owe to the image, where they look.

    Args:
        reply: what the model says.
        check: the same question without the image; None where there is no such thing.
        where: HTML of where the answer looks.
        truth: HTML that goes before the answers.
        of_bars: what must be said of their probabilities; "" for nothing.
    """
    parts = [f'<p class="umd-question">{escaped(reply.text)}</p>' if reply.text else "", truth, bars(reply)]
    if of_bars:
        parts.append(remark(of_bars))
    if reply.cut:
        parts.append(remark("The text is longer than what the model reads: its end was left out."))
    if check is not None:
        parts.append(f"<h3>Does the answer need the image?</h3>{checked(check)}")
    return f'<article class="umd-reply">{"".join(parts)}{where}<p class="umd-notice">{escaped(NOTICE)}</p></article>'


def checked(check: ImageCheck) -> str:
    """What the same question gets with a blank image; an answer that does not change is marked."""
    same = check.blank.best.text == check.reply.best.text
    return f'<p class="umd-check{" umd-same" if same else ""}">{escaped(str(check))}</p>'


def looked(explanation: Explanation) -> str:
    """The image as the model saw it, the weights of its patches over it, and the words that it read."""
    signed = explanation.method == "gradient"
    title = f"What speaks for “{explanation.answer}”" if signed else "Where it looks"
    parts = [f"<h3>{escaped(title)}</h3>"]
    image = Image.fromarray(np.moveaxis(explanation.pixels, 0, -1))
    seen = explanation.patches is not None
    figures = [
        figure(image, "The image as the model sees it" if seen else "The image, at which this model does not look")
    ]
    if seen:
        shades = Image.fromarray(shaded(explanation), "RGBA")
        over = Image.alpha_composite(image.convert("RGBA"), shades).convert("RGB")
        figures.append(figure(over, told(explanation)))
    parts.append(f'<div class="umd-figures">{"".join(figures)}</div>')
    if explanation.words:
        parts.append(words(explanation))
    return "".join(parts)


def told(explanation: Explanation) -> str:
    """Where the weights are, in words, for whoever does not see the picture, and how uneven they are."""
    assert explanation.patches is not None
    patches = explanation.patches
    if explanation.method == "gradient":
        return f"Red speaks for it, blue against it: in all {patches.sum():+.2f} on its score, against a blank image"
    row, column = np.unravel_index(int(patches.argmax()), patches.shape)
    vertical, horizontal = third(row, len(patches), "top", "bottom"), third(column, len(patches), "left", "right")
    place = " ".join(filter(None, (vertical, horizontal))) or "middle"
    times = patches.max() / patches.mean()
    most = f"most at the {place} of the picture, {times:.1f} times the mean"
    return f"Bright is looked at: {most} (full colour: {FULL} times)"


def third(place: int | np.intp, of: int, low: str, high: str) -> str:
    """In which third of a side a place lies; "" in the middle one."""
    return low if 3 * (place + 0.5) < of else high if 3 * (place + 0.5) > 2 * of else ""


def figure(image: Image.Image, caption: str) -> str:
    """A picture with its caption, which also stands for it."""
    large = image.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC) if image.width < PICTURE else image
    said = escaped(caption)
    return f'<figure><img src="{as_jpeg(large, large.width)}" alt="{said}"><figcaption>{said}</figcaption></figure>'


def words(explanation: Explanation) -> str:
    """The text, each word on a ground as strong as its weight."""
    weights = np.array([word.weight for word in explanation.words], dtype=np.float32)
    marked: Sequence[str] = [
        f'<mark style="--weight:{abs(strength):.2f}" class="{"umd-against" if strength < 0 else "umd-for"}" '
        f'title="{word.weight:.3f}">{escaped(word.text)}</mark>'
        for word, strength in zip(explanation.words, strengths(weights, explanation.method), strict=True)
    ]
    said = "what each adds" if explanation.method == "gradient" else "how much each is looked at"
    return f'<p class="umd-words"><span class="umd-label">The words, by {said}</span> {" ".join(marked)}</p>'
