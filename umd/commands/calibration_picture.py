"""A reliability diagram, and what is wrong among the surest answers."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from umd.metrics.picture import WIDTH, Picture, house_style, line_style, save
from umd.protocols import CalibrationReport

_WHOLE = ("overall", "accuracy")


def draw(report: CalibrationReport, stem: Path) -> list[Path]:
    """Draw both, and write the PNG and the SVG.

    Args:
        report: of at least one answer.
        stem: path of the files without ending.
    """
    whole = next(row for row in report["rows"] if row["group"] in _WHOLE)
    with house_style():
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        believed, withheld = figure.subplots(1, 2)
        _reliability(believed, report)
        _risk(withheld, report, 100 - whole["accuracy"])
        notes = (
            "Left: a mark is a bin of confidences, the larger the more answers are in it. On the diagonal a "
            "confidence is what it says; below it the model is too sure.",
            "Right: of the surest answers alone, from few to all, the share that is wrong. The dashed line is what "
            "confidences that say nothing get.",
        )
        setting = (
            f"{whole['questions']:,} answers, {whole['accuracy']:.1f} % right; expected calibration error "
            f"{whole['expected_calibration_error']:.1f} %; of the surest 80 % {whole['accuracy_at_80']:.1f} % are right"
        )
        return save(Picture(figure, notes), stem, "What confidences are worth", setting)


def _reliability(axes: Axes, report: CalibrationReport) -> None:
    style, bins = line_style(1), report["bins"]
    answers = sum(one["answers"] for one in bins)
    axes.plot([0, 100], [0, 100], color="0.6", linestyle="--", linewidth=0.8)
    axes.scatter(
        [one["confidence"] for one in bins],
        [one["accuracy"] for one in bins],
        s=[15 + 350 * one["answers"] / answers for one in bins],
        color=style["color"],
        alpha=0.75,
        linewidths=0,
        clip_on=False,
    )
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="mean confidence (%)", ylabel="accuracy (%)", aspect="equal")
    axes.grid(visible=True)


def _risk(axes: Axes, report: CalibrationReport, error_rate: float) -> None:
    curve = report["curve"]
    axes.axhline(error_rate, color="0.6", linestyle="--", linewidth=0.8)
    axes.plot([one["coverage"] for one in curve], [one["risk"] for one in curve], color=line_style(2)["color"])
    axes.set(xlim=(0, 100), ylim=(0, None), xlabel="answered: coverage (%)", ylabel="wrong among them: risk (%)")
    axes.grid(visible=True)
