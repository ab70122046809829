"""The model card of an exported model: what it is, what it was trained on, how good it is, what it is not for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd import NOTICE
from umd.files import UserError
from umd.inference.folder import FILES, NAMES, SETTINGS, TOKENIZER, Weights
from umd.inference.network import Settings, Task

_PURPOSE: dict[Task, str] = {
    "answering": "It answers questions about radiology images with one of {names} answers ([names.json](names.json)).",
    "classification": "It tells which of {names} classes ([names.json](names.json)) an image with its text belongs to.",
    "retrieval": "It tells how well a text goes with an image, and so ranks texts.",
    "pretraining": "It encodes images and texts into vectors. It gives no answers: they come with fine-tuning.",
}

_ASK: dict[Task, tuple[str, str]] = {
    "answering": (
        'model.answer("image.jpg", "Is there a fracture?")',
        '--image image.jpg --question "Is there a fracture?"',
    ),
    "classification": ('model.classify("image.jpg", "")', "--image image.jpg"),
    "retrieval": ('model.rank("image.jpg", ["one text", "another text"])', "--image image.jpg --texts texts.txt"),
    "pretraining": ('model.embed(images="image.jpg").images', ""),
}

_SURENESS: dict[Task, str] = {
    "answering": "An answer's probability is the model's own, not checked against how often it is right; there is no "
    "'I do not know'. A blank image gets an answer too: see what it is before trusting one.",
    "classification": "The probabilities are the model's own, not checked against how often it is right; every image "
    "gets a class, one that belongs to none as well.",
    "retrieval": "Probabilities are shares among the texts that are offered: one is first even if none fits.",
    "pretraining": "Vectors of patients are data of patients: what they give away was not examined.",
}

_WITHOUT_UMD = """## Without this package

The program reads `image` (pairs, 3, {size}, {size}) uint8, `input_ids` (pairs, length) int64 and `attention_mask`
(pairs, length) bool, and gives scores (pairs, {columns}). Normalisation is inside; what comes before must be as here:

- image: 8-bit RGB, turned as EXIF says, transparency on white; grey values of more bits scaled from the smallest depth
  that holds them; DICOM through its window. Of a side more than 8 times the other the middle. Shorter side to {size}
  pixels, longer one to int({size} * longer / shorter), by Pillow's `resize` with BICUBIC; centre crop.
- text: `{tokenizer}` of the `tokenizers` library, cut to {length} tokens, padded on the right with the
  `pad_token` of `settings.json` to a multiple of 8, at most {length}.
- scores to probabilities: {tempered}{link}.
"""

_LINKS = {
    "sigmoid": "sigmoid, each answer's own",
    "softmax": "softmax over all",
    "exp": "exp: they are log-likelihoods; -inf was not considered",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The checkpoint that was exported.

    Attributes:
        name: of the file.
        sha256: of the file.
        step: optimizer steps behind it; None where it does not say.
        epoch: the epoch, counted from 0, that it was written in; None likewise.
        data_module: the class that read the data; None likewise.
        published: of the encoders ("vision", "text") that started from published weights, what these are called.
    """

    name: str
    sha256: str
    step: int | None
    epoch: int | None
    data_module: str | None
    published: Mapping[str, str]


def results_beside(checkpoint: Path, sha256: str) -> tuple[dict[str, Any] | None, str]:
    """The results of a checkpoint in its run folder, if they are there; and what must be said of them.

    Raises:
        UserError: the file is broken.
    """
    path = checkpoint.absolute().parents[1] / "results.json"
    if not path.is_file():
        return None, "It was not tested: no results lay beside the checkpoint."
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tested = results.get("checkpoint")
    except (ValueError, AttributeError) as error:
        raise UserError(f"'{path}' is broken: {error}") from error
    if "schema" not in results:
        return results, "The results do not say which checkpoint was tested; they lay beside this one."
    if not tested or tested["sha256"] != sha256:
        return None, "Of this checkpoint there are no results: those beside it are of another one."
    limits = results.get("limits")
    part = f"Only {limits['batches']} of {limits['of']} batches of the test split were tested. " if limits else ""
    return results, f"{part}Tested was this very checkpoint."


def model_card(
    settings: Settings,
    weights: Weights,
    lineage: Sequence[Mapping[str, Any]],
    origin: Origin,
    arguments: Mapping[str, Any],
    parameters: int,
    results: tuple[Mapping[str, Any] | None, str],
) -> str:
    """The card, as Markdown.

    Args:
        settings: what is known of the model.
        weights: how its network is kept.
        lineage: the trainings behind it, the last one first (`umd.protocols.Training`).
        origin: the checkpoint.
        arguments: those that the stage was made with.
        parameters: how many numbers its network has.
        results: see `results_beside`.
    """
    trained_on = lineage[0].get("data") if lineage else None
    encoder = arguments["encoder"]
    made = (
        f"Vision encoder `{encoder['vision']}`, text encoder `{encoder['text']}`, {parameters:,} parameters; images of "
        f"{settings.image_size} x {settings.image_size} pixels, texts of at most {settings.text_length} tokens."
    )
    parts = [
        f"# {settings.stage}" + (f", trained on {trained_on}" if trained_on else ""),
        f"**{NOTICE}**",
        f"{_PURPOSE[settings.task].format(names=len(settings.names))} {made}",
        _how_to_ask(settings.task),
        _not_for(settings.task, trained_on, f"{settings.remark} {_tempered(settings)}".strip()),
        _data(lineage, origin),
        _results(*results),
        _making(origin, weights, arguments),
    ]
    if weights != "safetensors":
        parts.append(
            _WITHOUT_UMD.format(
                size=settings.image_size,
                length=settings.text_length,
                columns=len(settings.names) or 1,
                tokenizer=TOKENIZER,
                tempered="" if settings.temperature == 1 else f"divided by {settings.temperature:.6g}, then ",
                link=_LINKS[settings.link],
            ).rstrip()
        )
    return "\n\n".join(parts) + "\n"


def _how_to_ask(task: Task) -> str:
    call, options = _ASK[task]
    lines = ["```python", "import umd", "", 'model = umd.load("THIS_FOLDER")', f"print({call})", "```"]
    if options:
        lines += ["", "```", f"umd answer --model THIS_FOLDER {options}", "```"]
    return "\n".join(lines)


def _not_for(task: Task, trained_on: str | None, remark: str) -> str:
    return f"""## What it must not be used for

No diagnosis, triage, treatment or advice, and nothing that a patient's care depends on, with or without a physician who
looks over it: it was neither tested nor approved for that. It was measured on the test split of its own data set, if at
all. On images of other hospitals, devices, body parts or patients than those of {trained_on or "its data"},
on questions put otherwise or in another language, nobody knows how often it is wrong. Nor was it examined for
differences between groups of patients.

{_SURENESS[task]}{f" {remark}" if remark else ""}"""


def _tempered(settings: Settings) -> str:
    if settings.temperature == 1:
        return ""
    return f"They are taken at temperature {settings.temperature:.2f}, fitted on the validation split of its data."


def _data(lineage: Sequence[Mapping[str, Any]], origin: Origin) -> str:
    lines = [
        "## Data and protocol",
        "",
        "The trainings behind its weights, in their order; each began where the one before ended.",
    ]
    lines += ["", "| stage | data | protocol | seed | its checkpoint (SHA-256) |", "|---|---|---|---|---|"]
    for training in reversed(lineage):
        protocol = training.get("protocol") or "none"
        digest = f"`{training['sha256'][:16]}`" if training.get("sha256") else "this one"
        cells = (training.get("stage"), training.get("data"), protocol, training.get("seed"))
        lines.append(f"| {' | '.join('not noted' if cell is None else str(cell) for cell in cells)} | {digest} |")
    if any(training.get("data") is None for training in lineage):
        known = f" Its last training read `{origin.data_module}`." if origin.data_module else ""
        lines += ["", f"What is not noted nobody wrote down, nor what lies behind it.{known}"]
    for part, weights in origin.published.items():
        lines += ["", f"Its {part} encoder started from published weights ({weights})."]
    for training in reversed(lineage):
        if training.get("facts"):
            lines += ["", f"What {training.get('stage')} said of its data ({training.get('data') or 'not named'}):", ""]
            lines += [f"- {name}: {value}" for name, value in training["facts"].items()]
    return "\n".join(lines)


def _results(results: Mapping[str, Any] | None, remark: str) -> str:
    lines = ["## Results", "", remark]
    if results is None:
        return "\n".join(lines)
    columns = [name for name in results["columns"] if not name.endswith(("_low", "_high"))]
    stems = [name.removesuffix("_low") for name in results["columns"] if name.endswith("_low")]
    columns = [*columns[:3], *stems, *columns[3:]]
    lines += ["", f"{results['title']}:", "", f"| {' | '.join(name.replace('_', ' ') for name in columns)} |"]
    lines.append("|" + "---|" * len(columns))
    for row in results["rows"]:
        cells = [_interval(row, name) if name in stems else _cell(row.get(name)) for name in columns]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {note}" for note in results["notes"])]
    return "\n".join(lines)


def _interval(row: Mapping[str, Any], stem: str) -> str:
    low, high = row.get(f"{stem}_low"), row.get(f"{stem}_high")
    return "-" if low is None or high is None else f"[{low:.1f}, {high:.1f}]"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _making(origin: Origin, weights: Weights, arguments: Mapping[str, Any]) -> str:
    when = "" if origin.step is None else f", step {origin.step:,}, epoch {origin.epoch}"
    shown = {name: value for name, value in arguments.items() if name not in ("answers", "classes", "init_from")}
    return f"""## How it was made

By `umd export --format {weights}` from `{origin.name}` (SHA-256 `{origin.sha256}`{when}).
Network: `{FILES[weights]}`; what goes with it: `{SETTINGS}`, `{TOKENIZER}`, `{NAMES}`. What was written was compared
with the checkpoint before it got its place. The stage's settings:

```json
{json.dumps(shown, indent=1, ensure_ascii=False)}
```"""
