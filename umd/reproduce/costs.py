"""What a training step of each row costs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

COSTS_FILE = "costs.json"
"""What a training that is timed leaves in its folder."""

_WARM_UP = 2
"""Entries that are not counted: what was before the first step, and that step."""

_REFERENCE = "reference"


def step_cost(folder: Path) -> float | None:
    """CPU time of a training step as a multiple of that of the reference's step behind it, the median over steps.

    Both slow down alike on a machine that does other work beside.

    Args:
        folder: of a training that ran with both.

    Returns:
        The ratio; None where the training left no costs, or too few steps.
    """
    path = folder / COSTS_FILE
    if not path.is_file():
        return None
    steps = json.loads(path.read_text(encoding="utf-8"))["steps"][_WARM_UP:-1]  # the last is what came behind
    ratios = [
        sum(spent[0] for part, spent in step.items() if part != _REFERENCE) / step[_REFERENCE][0] for step in steps
    ]
    return statistics.median(ratios) if ratios else None


def extra_costs(costs: Mapping[str, float], baseline: str) -> dict[str, float]:
    """By how many per cent each row's step costs more than the baseline's; nothing where that one is not known."""
    if baseline not in costs:
        return {}
    return {name: 100 * (cost / costs[baseline] - 1) for name, cost in costs.items() if name != baseline}
