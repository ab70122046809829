"""The cells of a plan that a picture can show, and a note on those that it cannot."""

from __future__ import annotations

from collections.abc import Sequence

from umd.reproduce.graph import Benchmark
from umd.reproduce.plan import Cell, Plan
from umd.reproduce.steps import Workspace


def results(plan: Plan, workspace: Workspace) -> tuple[list[tuple[Benchmark, list[Cell]]], list[str]]:
    """The cells that have a result, by benchmark and in the plan's order, and a note on those that have none."""
    benchmarks: dict[Benchmark, list[Cell]] = {}
    missing: list[str] = []
    for cell in plan.cells:
        if workspace.done(cell.step):
            benchmarks.setdefault(cell.benchmark, []).append(cell)
        else:
            missing.append(named(cell))
    return list(benchmarks.items()), left_out(missing, "there is no result")


def named(cell: Cell) -> str:
    """A cell for a note."""
    return f"{cell.row.title} ({cell.benchmark.title})"


def left_out(names: Sequence[str], why: str) -> list[str]:
    """A note on what is left out; none where nothing is."""
    return [f"Left out, since {why}: {'; '.join(names)}."] if names else []
