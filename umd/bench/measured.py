"""One case's steps, summed up by part."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from umd.bench.cases import Case
from umd.bench.profiler import FETCH, REFERENCE, TEACHER
from umd.files import UserError

WARM_UP = 2
"""Entries that are not counted: what was before the first step, and the first step, whose FLOPs are counted."""

_PARTS = (
    (re.escape(FETCH) + "|batch_to_device|transfer|dataloader", "data"),
    (r"\.training_step$", "forward"),
    (r"\.backward$", "backward"),
    (r"optimizer|gradient_clipping|lr_scheduler", "optimizer"),
    (f"^{TEACHER}$", "teacher"),
)


def part_of(action: str) -> str:
    """The part of a step that one of Lightning's actions belongs to; a callback is a part of its own."""
    callback = re.match(r"\[Callback\](\w+)", action)
    if callback:
        return callback[1]
    return next((part for pattern, part in _PARTS if re.search(pattern, action)), "rest")


@dataclass(frozen=True)
class Measured:
    """What a training step of one case costs: medians over steps.

    Attributes:
        name: the case's.
        scale: its scale.
        cpu: CPU seconds of a step, all threads.
        wall: its wall seconds.
        ratio: its CPU time as a multiple of that of the reference's step beside it.
        flops: of a step's matrix products and convolutions, forward and backward.
        rate: FLOPs a CPU-second as a share of the machine's matrix rate.
        peak_mb: the most memory that a training without a reference beside it held, in MB.
        parts: CPU seconds of each part; they add up to about `cpu`.
    """

    name: str
    scale: str
    cpu: float
    wall: float
    ratio: float
    flops: int
    rate: float
    peak_mb: float
    parts: dict[str, float]

    def as_plain(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def measure(case: Case, steps: int, rate: float) -> Measured:
    """Train one case twice, each in a process of its own: with the reference beside it, and without for the memory.

    Args:
        case: what is trained.
        steps: that are counted.
        rate: the machine's matrix rate, in FLOPs a CPU-second.

    Raises:
        UserError: the training failed; with its last words.
    """
    timed = train(case, steps + WARM_UP, with_reference=True)
    alone = train(case, WARM_UP, with_reference=False)
    counted = timed["steps"][WARM_UP : WARM_UP + steps]
    own = [own_parts(step) for step in counted]
    cpu, wall = ([sum(spent[clock] for spent in step.values()) for step in own] for clock in (0, 1))
    parts: dict[str, list[float]] = {}
    for step in own:
        of_step: dict[str, float] = {}
        for action, spent in step.items():
            of_step[part_of(action)] = of_step.get(part_of(action), 0.0) + spent[0]
        for part, seconds in of_step.items():
            parts.setdefault(part, []).append(seconds)
    flops = timed["facts"]["flops"]
    return Measured(
        name=case.name,
        scale=case.scale,
        cpu=statistics.median(cpu),
        wall=statistics.median(wall),
        ratio=statistics.median(a / b[REFERENCE][0] for a, b in zip(cpu, counted, strict=True)),
        flops=flops,
        rate=flops / statistics.median(cpu) / rate,
        peak_mb=alone["facts"]["peak_mb"],
        parts={part: statistics.median(seconds) for part, seconds in parts.items()},
    )


def own_parts(step: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """A step without the reference's."""
    return {name: spent for name, spent in step.items() if name != REFERENCE}


def train(case: Case, steps: int, *, with_reference: bool) -> dict[str, Any]:
    """What `CostProfiler` wrote of a training of so many steps in a process of its own.

    Raises:
        UserError: the training failed; with its last words.
    """
    folder = Path(tempfile.mkdtemp())
    try:
        costs = folder / "costs.json"
        arguments = case.arguments(folder / "runs", steps, costs, with_reference=with_reference)
        done = subprocess.run(
            [sys.executable, "-m", "umd.cli", *arguments], capture_output=True, text=True, env=os.environ, check=False
        )
        if done.returncode:
            raise UserError(f"the training '{case.name}' failed:\n{done.stderr[-2000:]}")
        measured: dict[str, Any] = json.loads(costs.read_text(encoding="utf-8"))
        return measured
    finally:
        shutil.rmtree(folder, ignore_errors=True)
