"""Accuracy against epochs (GGP, Figure 3) and against alpha (UMD, Figure 5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from umd.metrics.picture import WIDTH, Picture, line_style
from umd.reproduce.figures.cells import left_out, named, results
from umd.reproduce.plan import Plan
from umd.reproduce.steps import Workspace

METRIC: Final = "validation/overall"

_GROUPS: Final = ("overall", "closed", "open")
_SHIFT: Final = 0.025  # between the groups, in units of alpha, so that their bars do not cover each other


def validation_curve(run: Path) -> dict[int, float]:
    """Overall validation accuracy in per cent by epoch, counted from 1; empty where nothing was validated.

    A training that was interrupted has several logs; of an epoch that stands in two, the later one holds.
    """
    logs = sorted(run.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    curve: dict[int, float] = {}
    for log in logs:
        table = pd.read_csv(log)
        if METRIC in table:
            values = table.dropna(subset=[METRIC])
            curve |= dict(zip(values["epoch"].astype(int) + 1, values[METRIC].astype(float), strict=True))
    return dict(sorted(curve.items()))


def validation(plan: Plan, workspace: Workspace) -> Picture | None:
    """A curve for each row, a panel for each data set."""
    benchmarks, notes = results(plan, workspace)
    numbers = {row.name: number for number, row in enumerate(plan.experiment.rows)}
    panels = []
    without = []
    for benchmark, cells in benchmarks:
        curves = [(cell, validation_curve(workspace.folder(cell.step))) for cell in cells]
        without += [named(cell) for cell, curve in curves if not curve]
        if drawn := [(cell, curve) for cell, curve in curves if curve]:
            panels.append((benchmark, drawn))
    if not panels:
        return None
    figure = Figure((WIDTH, 3.0 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (benchmark, drawn) in zip(axes, panels, strict=True):
        for cell, curve in drawn:
            number = numbers[cell.row.name]
            best = max(curve, key=lambda epoch: curve[epoch])
            axis.plot(
                list(curve),
                list(curve.values()),
                **line_style(number),
                markevery=max(1, len(curve) // 20),
                label=f"{cell.row.title}\n(best {curve[best]:.1f}, epoch {best})",
            )
        axis.set_title(benchmark.title, loc="left")
        axis.set_xlabel("epoch")
        axis.set_ylabel("overall accuracy on validation (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid()
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3.2, labelspacing=0.9)
    if any(benchmark.protocol == "paper" for benchmark, _ in panels):
        notes.append("Under protocol paper the test split stands in where a data set has no validation split.")
    notes = [
        f"Seed {plan.cells[0].benchmark.seed}. The checkpoint that is tested is of the best epoch.",
        *notes,
        *left_out(without, "nothing was validated"),
    ]
    return Picture(figure, tuple(notes))


def accuracies(run: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run's test report by the name of their group of questions."""
    report = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return {row["group"]: row for row in report["rows"] if row["accuracy"] is not None}


def alphas(plan: Plan, workspace: Workspace) -> Picture | None:
    """Test accuracy with its interval against alpha, a panel for each data set."""
    benchmarks, notes = results(plan, workspace)
    if not benchmarks:
        return None
    figure = Figure((WIDTH, 2.6), layout="constrained")
    axes = figure.subplots(1, len(benchmarks), squeeze=False, sharey=True)[0]
    handles: dict[str, Any] = {}
    for axis, (benchmark, cells) in zip(axes, benchmarks, strict=True):
        reports = {float(cell.row.name.removeprefix("alpha")): workspace.folder(cell.step) for cell in cells}
        rows = {alpha: accuracies(folder) for alpha, folder in reports.items()}
        for number, group in enumerate(_GROUPS):
            found = {alpha: row[group] for alpha, row in rows.items() if group in row}
            if not found:
                continue
            values = [row["accuracy"] for row in found.values()]
            positions = [alpha + (number - 1) * _SHIFT for alpha in found]
            handles[group] = axis.errorbar(
                positions,
                values,
                yerr=[
                    [row["accuracy"] - row["interval_low"] for row in found.values()],
                    [row["interval_high"] - row["accuracy"] for row in found.values()],
                ],
                **line_style(number),
                linewidth=1.2 if group == "overall" else 0.8,
                elinewidth=0.8,
                label=group,
            )
            if group == "overall":
                _label(axis, positions, values)
        axis.set_title(benchmark.title, loc="left")
        axis.set_xticks(list(reports))
        axis.set_xlabel("alpha")
        axis.margins(x=0.15)
        axis.grid(axis="y")
    axes[0].set_ylabel("test accuracy (%)")
    notes = [
        "Alpha weighs feature against data reconstruction in pre-training and calibration. "
        f"Bars: 95 % bootstrap interval over test questions. Seed {plan.cells[0].benchmark.seed}.",
        *notes,
    ]
    return Picture(figure, tuple(notes), handles)


def _label(axis: Axes, x: Sequence[float], values: Sequence[float]) -> None:
    """The numbers of the leftmost group, to the left of its marks."""
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    for position, value in zip(x, values, strict=True):
        axis.annotate(
            f"{value:.1f}", (position, value), (-5, 0), textcoords="offset points", ha="right", va="center", bbox=box
        )
