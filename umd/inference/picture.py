"""An explanation as a picture: where the answer looks, which words it reads, and what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from umd import NOTICE
from umd.files import writing
from umd.inference.explanation import Explanation, Method, Word

_TITLES: dict[Method, str] = {
    "attention": "where it looks",
    "gradient": "what speaks for '{answer}' (red), what against it (blue)",
}
_SHADES = {"attention": "inferno", "gradient": "RdBu_r"}

_HEIGHT, _LINE = 7, 0.28  # inches

FULL = 4
"""Attention of this many times the mean has the full colour; the mean, and less, has none."""


def draw(explanation: Explanation, path: Path, *, remark: str = "", shown: int = 5) -> None:
    """Draw the image as the model saw it, the weights of its patches over it, the words in colour, and the answers.

    Args:
        explanation: what to draw.
        path: the file, of any kind that matplotlib writes; ".png" where it has no ending.
        remark: a line or two more, below.
        shown: how many answers.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(9, 7), layout=None, facecolor="white")
    FigureCanvasAgg(figure)
    image = np.moveaxis(explanation.pixels, 0, -1)
    lines = _words(figure, explanation.words, explanation.method)
    height = _HEIGHT + _LINE * max(0, len(lines) - 2)  # there is room for two
    figure.set_figheight(height)
    for number, line in enumerate(lines):
        for word in line:
            word.set_y((height - 4.585 - _LINE * number) / height)
    bottom, tall = (height - 4.2) / height, 3.78 / height
    left, right = figure.add_axes((0.03, bottom, 0.45, tall)), figure.add_axes((0.52, bottom, 0.45, tall))
    left.set_title("as the model sees it", fontsize=10)
    right.set_title(_TITLES[explanation.method].format(answer=explanation.answer), fontsize=10)
    for axes in (left, right):
        axes.imshow(image)
        axes.axis("off")
    if explanation.patches is not None:
        right.imshow(shaded(explanation), interpolation="nearest")
        right.text(0, 1.02 * image.shape[0], _strongest(explanation), fontsize=8, va="top", color="0.3")
    _bars(figure.add_axes((0.22, 0.77 / height, 0.72, 1.26 / height)), explanation, shown)
    figure.text(0.03, 0.455 / height, remark, fontsize=8, va="top", color="0.2", wrap=True)
    figure.text(0.03, 0.084 / height, NOTICE, fontsize=7, color="0.4")
    with writing(path):
        figure.savefig(path, dpi=130)


def shaded(explanation: Explanation) -> NDArray[np.uint8]:
    """The weights of the patches as colours to lay over the image: (S, S, 4), the weaker the more transparent.

    Attention goes from the mean (no colour) to `FULL` times the mean, so that what is flat looks flat; gradients from
    minus to plus the largest size.
    """
    assert explanation.patches is not None
    size = explanation.pixels.shape[-1]
    signed = explanation.method == "gradient"
    shares = strengths(explanation.patches, "gradient") if signed else above_the_mean(explanation.patches)
    grid = len(shares)
    side = size // grid * grid  # what is right and below fills no patch
    smooth = Image.fromarray(shares.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    full = np.zeros((size, size), dtype=np.float32)
    full[:side, :side] = np.clip(np.asarray(smooth), -1, 1)
    colours = np.array(colormaps[_SHADES[explanation.method]](full / 2 + 0.5 if signed else full))
    colours[..., 3] = 0.75 * np.abs(full)
    return np.asarray(np.round(255 * colours), dtype=np.uint8)


def above_the_mean(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Attention scaled for the eye: 0 up to the mean, 1 from `FULL` times the mean on."""
    return np.clip((weights / max(float(weights.mean()), 1e-12) - 1) / (FULL - 1), 0, 1)


def strengths(weights: NDArray[np.float32], method: Method) -> NDArray[np.float32]:
    """Weights scaled for the eye: attention from 0 (the least of them) to 1, gradients from -1 to 1."""
    if method == "gradient":
        return weights / max(float(np.abs(weights).max()), 1e-12)
    spread = float(weights.max() - weights.min())
    return (weights - weights.min()) / spread if spread > 0 else np.zeros_like(weights)


def _strongest(explanation: Explanation) -> str:
    """How uneven the weights are, and what the colours mean."""
    assert explanation.patches is not None
    if explanation.method == "gradient":
        return f"in all {explanation.patches.sum():+.2f} on the answer's score, against a blank image"
    times = explanation.patches.max() / explanation.patches.mean()
    return f"strongest patch: {times:.1f} times the mean (full colour: {FULL} times)"


def _words(figure: Figure, words: tuple[Word, ...], method: Method) -> list[list[Text]]:
    """The text in as many lines as it takes, each word on a ground as strong as its weight; their heights are open."""
    if not words:
        return []
    scaled = strengths(np.array([word.weight for word in words], dtype=np.float32), method)
    shades = colormaps["RdBu_r" if method == "gradient" else "Oranges"]
    x, lines = 0.03, list[list[Text]]([[]])
    for word, strength in zip(words, scaled, strict=True):
        ground = shades(0.5 + 0.35 * strength if method == "gradient" else 0.65 * strength)
        box = {"facecolor": ground, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
        text = figure.text(x, 0, word.text, fontsize=11, bbox=box)
        width = text.get_window_extent().width / figure.bbox.width
        if x + width > 0.97 and x > 0.03:
            x = 0.03
            text.set_x(x)
            lines.append([])
        lines[-1].append(text)
        x += width + 0.018
    return lines


def _bars(axes: Axes, explanation: Explanation, shown: int) -> None:
    answers = explanation.reply.answers[:shown]
    labels = [answer.text if len(answer.text) <= 28 else f"{answer.text[:27]}..." for answer in answers]
    sure = [answer.probability for answer in answers]
    colours = ["tab:blue" if answer.text == explanation.answer else "0.75" for answer in answers]
    places = list(range(len(answers)))
    axes.barh(places, sure, color=colours)
    axes.set_yticks(places, labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.tick_params(axis="x", labelsize=8)
    for place, value in zip(places, sure, strict=True):
        axes.text(min(value + 0.01, 0.94), place, f"{value:.2f}", va="center", fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
