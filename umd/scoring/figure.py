"""A picture of accuracies: systems and fools on every group."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

_MOST_GROUPS = 40


def accuracy_picture(rows: Sequence[dict[str, Any]]) -> str:
    """Groups down, accuracy across: systems with their intervals over images, fools as ticks; SVG as a data address.

    Args:
        rows: of `umd.scoring.scores.score_rows`; more than 40 groups are cut.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))[:_MOST_GROUPS]
    systems = list(dict.fromkeys(row["system"] for row in rows if not row["fool"]))
    height = 0.34 + 0.1 * len(systems)
    figure = Figure(figsize=(8, 1.2 + height * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(systems):
        of_system = {row["group"]: row for row in rows if row["system"] == name}
        shift = 0.6 * ((number + 0.5) / len(systems) - 0.5)
        places = [place + shift for place in range(len(groups))]
        values = [of_system[group]["accuracy"] for group in groups]
        ends = [(of_system[group]["image_interval_low"], of_system[group]["image_interval_high"]) for group in groups]
        color = f"C{number}"
        axes.hlines(places, [low for low, _ in ends], [high for _, high in ends], color=color, linewidth=1.5)
        axes.plot(values, places, "o", color=color, markersize=5, label=_plain(name))
    fools = [(row["accuracy"], groups.index(row["group"])) for row in rows if row["fool"] and row["group"] in groups]
    if fools:
        axes.plot(*zip(*fools, strict=True), "|", color="0.4", markersize=14, label="without a look at the image")
    counts = {row["group"]: row["questions"] for row in rows}
    axes.set_yticks(range(len(groups)), [_plain(f"{group} ({counts[group]:,})") for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("accuracy in per cent, with 95 % intervals over images")
    axes.grid(axis="x", color="0.9")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue().encode()).decode()


def _plain(text: str) -> str:
    """A label that is no formula, short enough to stand beside the axis; a leading underscore would hide it."""
    short = text if len(text) <= 48 else text[:47] + "\u2026"
    return ("\u200b" + short if short.startswith("_") else short).replace("$", r"\$")
