"""The papers' figures: those that stand beside ours, and the rows that are quoted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from umd.reproduce.graph import Benchmark
from umd.reproduce.plan import Plan
from umd.reproduce.scales import TITLES

_UNKNOWN = (
    *("mean", "std", "seeds", "interval_low", "interval_high"),
    *("image_interval_low", "image_interval_high", "count", "ceiling"),
)  # of a row that is quoted


@cache
def paper_figures() -> dict[str, Any]:
    """The figures of both papers' tables."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "paper.json").read_text(encoding="utf-8"))
    return found


def figures_beside(plan: Plan, name: str | None, benchmark: Benchmark) -> dict[str, float]:
    """The paper's figures of a row; none where it measured something else: on phantom data, or under `clean`."""
    if plan.setting.scale == "embedded" or plan.experiment.paper is None or benchmark.protocol == "clean":
        return {}
    found: dict[str, float] = paper_figures()[plan.experiment.paper]["rows"].get(name, {}).get(benchmark.dataset, {})
    return found


def quoted_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """The paper's rows that are not run here, as quoted; none beside phantom data."""
    experiment = plan.experiment
    if plan.setting.scale == "embedded" or experiment.paper is None:
        return
    titles = {row.paper: row.title for row in experiment.rows if row.paper}
    run = {cell.row.paper for cell in plan.cells}
    protocol = "paper" if experiment.task == "vqa" else None
    datasets = list(dict.fromkeys(cell.benchmark.dataset for cell in plan.cells))
    for name, figures in paper_figures()[experiment.paper]["rows"].items():
        if name in run:
            continue
        title = titles.get(name, f"line {name}, which pair of components is not known" if name.isdigit() else name)
        for dataset in datasets:
            for metric, figure in figures.get(dataset, {}).items():
                yield {
                    "row": name,
                    "title": title,
                    "kind": "quoted",
                    "dataset": dataset,
                    "dataset_title": TITLES[dataset],
                    "protocol": protocol,
                    "metric": metric,
                    **dict.fromkeys(_UNKNOWN),
                    "paper": figure,
                    "difference": None,
                }
