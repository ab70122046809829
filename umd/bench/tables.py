"""The figures on a terminal, alone or beside earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

STEP_PARTS = ("data", "forward", "teacher", "backward", "optimizer")
REST = "rest"
SMALL = 0.005
"""Callbacks of a smaller share in every training stand under "rest"."""


def show(figures: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Print the tables; with earlier figures, what each is now as a multiple of what it was."""
    console = Console()
    machine = figures["machine"]
    console.print(
        f"{machine['threads']} threads, {machine['matrix_rate'] / 1e9:.0f} GFLOP a CPU-second in a matrix product; "
        f"torch {machine['torch']}"
    )
    if figures["cases"]:
        console.print(steps(figures["cases"], {case["name"]: case for case in (old or {}).get("cases", ())}))
        console.print(shares(figures["cases"]))
    if figures["throughput"]:
        console.print(speeds(figures["throughput"], (old or {}).get("throughput", {})))
    if figures["start_up"]:
        console.print(commands(figures["start_up"], (old or {}).get("start_up", {})))


def steps(cases: Sequence[Mapping[str, Any]], old: Mapping[str, Any]) -> Table:
    """One row a training: its step as a multiple of the reference's, its FLOPs, and the peak of memory."""
    table = _table("training step", "x reference", "CPU ms", "wall ms", "GFLOP", "% of matrix rate", "peak MB")
    if old:
        table.add_column("x earlier", justify="right")
    for case in cases:
        before = old.get(case["name"])
        table.add_row(
            case["name"],
            f"{case['ratio']:.2f}",
            f"{1000 * case['cpu']:.0f}",
            f"{1000 * case['wall']:.0f}",
            f"{case['flops'] / 1e9:.1f}",
            f"{100 * case['rate']:.0f}",
            f"{case['peak_mb']:.0f}",
            *([f"{case['ratio'] / before['ratio']:.2f}" if before else "new"] if old else []),
        )
    return table


def shares(cases: Sequence[Mapping[str, Any]]) -> Table:
    """One row a part of the step, one column a training: the part's share of the CPU time in per cent."""
    percent = [{name: 100 * spent / case["cpu"] for name, spent in case["parts"].items()} for case in cases]
    callbacks = {name for of_one in percent for name in of_one} - {*STEP_PARTS, REST}
    large = sorted(name for name in callbacks if any(one.get(name, 0.0) >= 100 * SMALL for one in percent))
    table = _table("% of CPU time", *(case["name"] for case in cases))
    for name in (*STEP_PARTS, *large):
        table.add_row(name, *(f"{one[name]:.1f}" if name in one else "" for one in percent))
    shown = {*STEP_PARTS, *large}
    table.add_row(REST, *(f"{sum(value for name, value in one.items() if name not in shown):.1f}" for one in percent))
    return table


def speeds(now: Mapping[str, float], old: Mapping[str, float]) -> Table:
    """One row a speed, more being better."""
    table = _table("speed", "", *(("x earlier",) if old else ()))
    for name, speed in now.items():
        table.add_row(name, f"{speed:.0f}", *([f"{speed / old[name]:.2f}" if name in old else "new"] if old else []))
    return table


def commands(now: Mapping[str, Any], old: Mapping[str, Any]) -> Table:
    """One row a command: its start as a multiple of the import of torch and lightning in the same run."""
    table = _table("start", "x import", "CPU s", "wall s", *(("x earlier",) if old else ()))
    imported = now["torch, lightning"]["cpu"]
    for name, spent in now.items():
        before = old.get(name)
        ratio = spent["cpu"] / imported
        earlier = before["cpu"] / old["torch, lightning"]["cpu"] if before else None
        table.add_row(
            name if name == "torch, lightning" else f"umd {name}",
            f"{ratio:.2f}",
            f"{spent['cpu']:.2f}",
            f"{spent['wall']:.2f}",
            *([f"{ratio / earlier:.2f}" if earlier else "new"] if old else []),
        )
    return table


def _table(first: str, *headings: str) -> Table:
    table = Table(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
