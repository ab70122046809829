"""`umd data --picture`: a few samples, as they lie on disk and as a training sees them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from datamodules.looks import Sample
from umd.files import UserError, writing

FORMATS = ("png", "jpg", "pdf", "svg")
_WIDTH = 36
"""Characters of a line below an image."""


def check_picture(path: Path) -> None:
    """Refuse what cannot be drawn, before anything is read.

    Raises:
        UserError: the file's ending is none of a picture's.
    """
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise UserError(f"--picture: '{path}' must end in one of {', '.join('.' + name for name in FORMATS)}")


def draw(samples: Sequence[Sample], title: str, path: Path) -> None:
    """Draw the samples side by side: the original above, what a training sees below, each with its text.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(2.9 * len(samples), 8.2), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, len(samples), squeeze=False)
    for (above, below), sample in zip(axes.T, samples, strict=True):
        above.imshow(sample.original)
        above.set_title(_short(sample.image_name, 30), fontsize=8)
        above.set_xlabel(_wrapped(sample.told), fontsize=8, loc="left")
        below.imshow(sample.image.permute(1, 2, 0).numpy())
        side = sample.image.shape[-1]
        below.set_title(f"in training: {side} x {side}", fontsize=8)
        below.set_xlabel(_wrapped(" ".join(sample.tokens)), fontsize=8, loc="left", family="monospace")
        for axis in (above, below):
            axis.set_xticks([])
            axis.set_yticks([])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _wrapped(text: str) -> str:
    """At most six lines; a dollar is no formula."""
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, _WIDTH)]
    shown = lines[:6] if len(lines) <= 6 else [*lines[:5], "…"]
    return "\n".join(shown).replace("$", r"\$")
