"""A table's main metric as dots with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from umd.metrics.picture import WIDTH, Picture
from umd.reproduce.figures.cells import left_out

_GROUPS: Final = (("ours",), ("control", "reference"), ("quoted",))
_BREAK: Final = 0.6  # between two groups, in rows
_SHIFT: Final = 0.17  # of the two protocols from the middle of their row
_INCHES: Final = 0.27  # a row

_CLEAN: Final[dict[str, Any]] = {"marker": "o", "color": "#0072B2"}
_PAPER: Final[dict[str, Any]] = {"marker": "s", "color": "#D55E00", "markerfacecolor": "white"}
_PLAIN: Final[dict[str, Any]] = {"marker": "o", "color": "#000000"}
_FIGURE: Final[dict[str, Any]] = {"marker": "D", "color": "0.35", "markerfacecolor": "0.8", "markersize": 6}

Row = Mapping[str, Any]
Key = tuple[str, str]


def dots(table: Mapping[str, Any]) -> Picture | None:
    """A panel for each data set, a line for each row; None where no row has the main metric."""
    rows: list[Row] = [row for row in table["rows"] if row["metric"] == table["headline"]]
    if not rows:
        return None
    heights, ends = _heights(rows)
    titles = {_key(row): row["title"] for row in rows}
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    figure = Figure((WIDTH, _INCHES * (max(heights.values()) + 1) + 0.6), layout="constrained")
    axes = figure.subplots(1, len(datasets), squeeze=False, sharey=True)[0]
    legend: dict[str, Line2D] = {}
    measured = {row["protocol"] for row in rows if row["kind"] != "quoted"}
    apart = _SHIFT if len(measured) > 1 else 0.0
    for axis, dataset in zip(axes, datasets, strict=True):
        here = [row for row in rows if row["dataset"] == dataset]
        _lay_out(axis, here, heights, ends, table["headline"])
        for row in here:
            legend |= _draw(axis, row, heights[_key(row)], apart)
    axes[0].set_yticks(list(heights.values()), [titles[key] for key in heights])
    axes[0].set_ylim(max(heights.values()) + 0.6, -0.6)
    seeds = max((row["seeds"] or 1 for row in rows), default=1)
    notes = ["Bars: 95 % bootstrap interval over test samples" + (f"; mean of {seeds} seeds." if seeds > 1 else ".")]
    if any(row["kind"] == "quoted" for row in rows):
        notes.append("The rows at the bottom are quoted from the paper; they were not run.")
    notes += left_out(table.get("missing", ()), "a step has no result")
    return Picture(figure, tuple(notes), dict(sorted(legend.items())))


def _key(row: Row) -> Key:
    return row["kind"], row["row"]


def _heights(rows: Sequence[Row]) -> tuple[dict[Key, float], list[float]]:
    """Where each row stands, counted downwards, and where a group ends: ours, controls and references, quoted."""
    heights: dict[Key, float] = {}
    ends: list[float] = []
    at = 0.0
    for kinds in _GROUPS:
        keys = list(dict.fromkeys(_key(row) for row in rows if row["kind"] in kinds))
        if keys and heights:
            ends.append(at - 0.5 + _BREAK / 2)
            at += _BREAK
        for key in keys:
            heights[key] = at
            at += 1
    return heights, ends


def _lay_out(axis: Axes, rows: Sequence[Row], heights: Mapping[Key, float], ends: Sequence[float], metric: str) -> None:
    counts = {row["count"] for row in rows if row["count"]}
    size = f" (n = {max(counts):,})" if counts else ""
    axis.set_title(rows[0]["dataset_title"] + size, loc="left")
    axis.set_xlabel(f"{metric} accuracy (%)" if metric == "overall" else f"{metric} (%)")
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    for height in heights.values():
        axis.axhline(height, color="0.92", linewidth=0.5, zorder=0)
    for end in ends:
        axis.axhline(end, color="0.55", linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)


def _draw(axis: Axes, row: Row, height: float, apart: float) -> dict[str, Line2D]:
    """One row's marks, and what the legend says of each; two protocols stand `apart` from the row's middle."""
    protocol = str(row["protocol"] or "") if row["kind"] != "quoted" else ""
    shift = {"clean": -apart, "paper": apart}.get(protocol, 0.0)
    drawn: dict[str, Line2D] = {}
    if row["mean"] is not None:
        style = {"clean": _CLEAN, "paper": _PAPER}.get(protocol, _PLAIN)
        if row["interval_low"] is not None:
            ends = [row["interval_low"], row["interval_high"]]
            axis.plot(ends, [height + shift] * 2, color=style["color"], linewidth=0.9)
        (mark,) = axis.plot([row["mean"]], [height + shift], linestyle="", **style)
        drawn[f"ours, protocol {protocol}" if protocol else "ours"] = mark
    if row["paper"] is not None:
        (mark,) = axis.plot([row["paper"]], [height + shift], linestyle="", zorder=1.5, **_FIGURE)
        drawn["the paper's number"] = mark
    return drawn
