"""Test questions with their image and two models' answers (UMD, Figure 6)."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

from umd.files import UserError
from umd.metrics.picture import WIDTH, Picture
from umd.reproduce.figures.cells import left_out, named, results
from umd.reproduce.graph import Benchmark
from umd.reproduce.plan import Plan
from umd.reproduce.steps import Workspace

SHOWN: Final = 5
SEED: Final = 0

_PIXELS: Final = 400
_CHARACTERS: Final = 78
_IMAGE_INCHES: Final = 1.3
_LINE_INCHES: Final = 0.16
_RIGHT, _WRONG = ("✓", "#00664B"), ("✗", "#A33C00")

Case = tuple[bool, ...]
"""For each model whether it is right."""


@dataclass(frozen=True)
class Answered:
    """The test questions of one data set with each model's answers.

    Attributes:
        benchmark: the data set and protocol.
        root: its folder.
        models: the models' titles.
        tables: for each model its answers, a row a question.
    """

    benchmark: Benchmark
    root: Path
    models: tuple[str, ...]
    tables: tuple[pd.DataFrame, ...]

    @property
    def cases(self) -> list[Case]:
        """The case of each question."""
        right = [table["correct"].astype(bool).tolist() for table in self.tables]
        return list(zip(*right, strict=True))


def choose(cases: Sequence[Case], images: Sequence[str], count: int = SHOWN, seed: int = SEED) -> list[int]:
    """Questions for show, chosen by a rule that favours no model.

    Each case that occurs gets one question, the largest ones first; the others are shared out in proportion
    (D'Hondt). Within a case the questions are drawn, and no image is shown twice.

    Args:
        cases: (N,) the case of each question.
        images: (N,) its image.
        count: how many to show; fewer where there are not as many images.
        seed: of the draw.

    Returns:
        Positions of the chosen questions: those that more models answer rightly first.
    """
    shuffled: list[int] = np.random.default_rng(seed).permutation(len(cases)).tolist()
    queues = {case: [index for index in shuffled if cases[index] == case] for case in sorted(set(cases))}
    sizes = {case: len(queue) for case, queue in queues.items()}
    taken: dict[Case, list[int]] = {case: [] for case in queues}
    used: set[str] = set()
    while sum(map(len, taken.values())) < count:
        queues = {case: [index for index in queue if images[index] not in used] for case, queue in queues.items()}
        waiting = [case for case, queue in queues.items() if queue]
        if not waiting:
            break
        first = [case for case in waiting if not taken[case]] or waiting
        case = max(first, key=lambda case: sizes[case] / (len(taken[case]) + 1))
        taken[case].append(queues[case][0])
        used.add(images[queues[case][0]])
    order = sorted(taken, key=lambda case: (sum(case), case), reverse=True)
    return [index for case in order for index in taken[case]]


def answered(plan: Plan, workspace: Workspace) -> Picture | None:
    """A few questions of each data set, one below the other."""
    benchmarks, notes = results(plan, workspace)
    sets = []
    for benchmark, cells in benchmarks:
        root = _root(plan, workspace, benchmark)
        if root is None:
            why = "what the data holds is not known (its step has no result)"
            notes += left_out([named(cell) for cell in cells], why)
            continue
        tables = tuple(
            pd.read_csv(workspace.folder(cell.step) / "predictions.csv", keep_default_na=False) for cell in cells
        )
        if any(table["index"].tolist() != tables[0]["index"].tolist() for table in tables):
            raise UserError(f"the models for {benchmark.title} were tested on different questions")
        sets.append(Answered(benchmark, root, tuple(cell.row.title for cell in cells), tables))
    if not sets:
        return None
    shown = [(one, question) for one in sets for question in choose(one.cases, one.tables[0]["image"].tolist())]
    texts = [_texts(one, question, several=len(sets) > 1) for one, question in shown]
    heights = [max(_IMAGE_INCHES, _LINE_INCHES * len(lines)) for lines in texts]
    figure = Figure((WIDTH, sum(heights) + 0.12 * (len(heights) - 1)))
    grid = figure.add_gridspec(
        len(shown),
        2,
        width_ratios=[_IMAGE_INCHES, WIDTH - _IMAGE_INCHES],
        height_ratios=heights,
        wspace=0.03,
        hspace=0.12 / (sum(heights) / len(heights)),
    )
    for number, ((one, question), lines, height) in enumerate(zip(shown, texts, heights, strict=True)):
        _show_image(figure.add_subplot(grid[number, 0]), one.root, one.tables[0]["image"][question])
        axis = figure.add_subplot(grid[number, 1])
        axis.set_axis_off()
        for line, (text, style) in enumerate(lines):
            axis.text(0, 1 - line * _LINE_INCHES / height, text, va="top", transform=axis.transAxes, **style)
    return Picture(figure, (*(_rule(one) for one in sets), *notes))


def _root(plan: Plan, workspace: Workspace, benchmark: Benchmark) -> Path | None:
    """The data set's folder, as `umd data` found it."""
    for other, step in plan.data:
        if (other.dataset, other.protocol) == (benchmark.dataset, benchmark.protocol) and workspace.done(step):
            facts = json.loads((workspace.folder(step) / "summary.json").read_text(encoding="utf-8"))
            return Path(facts["root"])
    return None


def _texts(one: Answered, question: int, several: bool) -> list[tuple[str, dict[str, Any]]]:
    """The lines beside an image, each with its style."""
    rows = [table.iloc[question] for table in one.tables]
    kind = "closed" if rows[0]["closed"] else "open"
    about = f"{one.benchmark.title}, {kind} question" if several else f"{kind} question"
    lines: list[tuple[str, dict[str, Any]]] = [(f"{about}; {_called(one, one.cases[question])}", {"color": "0.35"})]
    lines += [(line, {"weight": "bold"}) for line in textwrap.wrap(str(rows[0]["question"]), _CHARACTERS)]
    lines += [(line, {}) for line in textwrap.wrap(f"true answer: {rows[0]['ground_truth']}", _CHARACTERS + 6)]
    for model, row in zip(one.models, rows, strict=True):
        sign, colour = _RIGHT if row["correct"] else _WRONG
        text = f"{sign}  {model}: {row['answer']}  (confidence {float(row['confidence']):.2f})"
        wrapped = textwrap.wrap(text, _CHARACTERS + 6, subsequent_indent="     ")
        lines += [(line, {"color": colour}) for line in wrapped]
    return lines


def _called(one: Answered, case: Case) -> str:
    """A case in words."""
    right = [model for model, is_right in zip(one.models, case, strict=True) if is_right]
    if not right:
        return "all wrong" if len(case) > 2 else "both wrong" if len(case) == 2 else "wrong"
    if len(right) == len(case):
        return "all right" if len(case) > 2 else "both right" if len(case) == 2 else "right"
    return f"{' and '.join(right)} alone right"


def _rule(one: Answered) -> str:
    cases = one.cases
    counts = "; ".join(
        f"{_called(one, case)}: {cases.count(case)}" for case in sorted(set(cases), key=lambda c: (sum(c), c))[::-1]
    )
    return (
        f"Not chosen by hand: of the {len(cases)} test questions of {one.benchmark.title} ({counts}) each case gets "
        f"one, the others go by the cases' sizes; drawn with seed {SEED}, no image twice. Answers are after VQA "
        f"normalisation. Training seed {one.benchmark.seed}."
    )


def _show_image(axis: Axes, root: Path, name: str) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set(visible=True, color="0.7")
    axis.set_anchor("N")
    try:
        with Image.open(root / name) as image:
            # No resampling by matplotlib: the SVG carries these very pixels.
            axis.imshow(ImageOps.contain(_as_rgb(image), (_PIXELS, _PIXELS)), interpolation="none")
    except OSError:  # absent, or of a format that is not Pillow's: said where it is missing
        axis.set_aspect("equal")
        text = "cannot be shown:\n" + "\n".join(textwrap.wrap(name, 24))
        axis.text(0.5, 0.5, text, ha="center", va="center", size=6.5, transform=axis.transAxes)


def _as_rgb(image: Image.Image) -> Image.Image:
    """In RGB; of more than 8 bits, the darkest pixel black and the brightest white."""
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    values: NDArray[np.float64] = np.asarray(image, dtype=np.float64)
    scaled = 255 * (values - values.min()) / max(float(np.ptp(values)), 1.0)
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
