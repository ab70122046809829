"""What all pictures share: how they look, what is written above and below, the files."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH: Final = 7.2
"""Of every picture in inches: two columns of a paper."""

DPI: Final = 200

_COLOURS: Final = ("#000000", "#D55E00", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
"""Okabe and Ito's palette, without its yellow, which vanishes on white."""

_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
_DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

_STYLE: Final[dict[Any, Any]] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2,
    "text.parse_math": False,  # a question may well hold two dollar signs
    "svg.fonttype": "none",  # texts stay texts
    "svg.hashsalt": "umd",  # the same picture gives the same bytes
}
# In inches, and characters that surely fit on a line.
_MARGIN: Final = 0.1
_TITLE: Final = 0.2
_SETTING: Final = (0.145, 120)
_LEGEND: Final = (0.17, 100)
_NOTE: Final = (0.135, 128)


@dataclass(frozen=True)
class Picture:
    """What a figure shows.

    Attributes:
        figure: the drawing alone, as wide as a picture is; `save` makes room around it.
        notes: what stands below it, a paragraph each.
        legend: what a mark stands for, with the artist that is shown; empty where the drawing has its own.
    """

    figure: Figure
    notes: tuple[str, ...]
    legend: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save within: matplotlib's defaults, whatever the user's are, and this project's."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def save(picture: Picture, stem: Path, title: str, setting: str) -> list[Path]:
    """Write title, setting and notes around a picture, and the PNG and the SVG.

    Args:
        picture: what is drawn.
        stem: path of the files without ending.
        title: what the picture shows.
        setting: at which scale, so that nobody takes it for the paper's.

    Returns:
        The files, each written in one move.
    """
    figure = picture.figure
    settings, notes = _wrapped([setting], _SETTING[1]), _wrapped(picture.notes, _NOTE[1])
    longest = max(map(len, picture.legend), default=0)
    columns = max(1, min(len(picture.legend), _LEGEND[1] // (longest + 7)))
    below = _MARGIN + _NOTE[0] * len(notes)
    legend = _LEGEND[0] * math.ceil(len(picture.legend) / columns) + _MARGIN if picture.legend else 0.0
    drawing = figure.get_figheight()
    above = _TITLE + _SETTING[0] * len(settings) + 2 * _MARGIN
    height = below + legend + _MARGIN + drawing + above
    figure.set_figheight(height)
    _confine(figure, bottom=(height - above - drawing) / height, top=1 - above / height)
    left = _MARGIN / WIDTH
    figure.text(left, 1 - _MARGIN / height, title, va="top", weight="bold", size=9)
    figure.text(left, 1 - (_MARGIN + _TITLE) / height, "\n".join(settings), va="top", size=7.5, style="italic")
    figure.text(left, below / height, "\n".join(notes), va="top", size=7, color="0.25", linespacing=1.35)
    if picture.legend:
        figure.legend(
            list(picture.legend.values()),
            list(picture.legend),
            loc="center",
            bbox_to_anchor=(0.5, (below + _MARGIN / 2 + legend / 2) / height),
            ncols=columns,
            handlelength=3.2 if any(isinstance(mark, ErrorbarContainer) for mark in picture.legend.values()) else None,
        )
    paths = []
    for ending, metadata in ((".png", {}), (".svg", {"Date": None})):
        path = stem.with_suffix(ending)
        temporary = path.with_name(f".{path.name}.part")
        figure.savefig(temporary, format=ending[1:], dpi=DPI, metadata=metadata)
        os.replace(temporary, path)
        paths.append(path)
    return paths


def line_style(number: int) -> dict[str, Any]:
    """Colour, dashes and marks of one of several lines: each tells it apart without the others."""
    return {**mark_style(number), "linestyle": _DASHES[number % len(_DASHES)]}


def mark_style(number: int) -> dict[str, Any]:
    """Colour and mark of one of several kinds of points; filled and empty marks take turns."""
    colour = _COLOURS[number % len(_COLOURS)]
    face = colour if number % 2 == 0 else "white"
    return {"color": colour, "marker": _MARKERS[number % len(_MARKERS)], "markerfacecolor": face}


def _confine(figure: Figure, bottom: float, top: float) -> None:
    """Keep the drawing between these two heights, shares of the figure's."""
    left = _MARGIN / WIDTH
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(left, bottom, 1 - 2 * left, top - bottom))
    else:
        figure.subplots_adjust(left=left, right=1 - left, bottom=bottom, top=top)


def _wrapped(paragraphs: Sequence[str], characters: int) -> list[str]:
    return [line for text in paragraphs for line in textwrap.wrap(text, characters)]
