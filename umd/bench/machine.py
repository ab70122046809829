"""What this machine does, apart from any training: its matrix rate, its pictures a second, and how commands start."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import torch

COMMANDS = (
    "--help",
    "fit --help",
    "fit --config vqa.yaml --model.optimiser.lr 1",  # a mistake
    "answer --help",
    "answer --ckpt_path nowhere --image nothing.jpg --question what?",
    "score --help",
    "score nothing.csv --data vqa_rad --root nowhere",
    "compare --help",
    "data --help",
)
"""What start-up is timed of: a help and a mistake of the commands that are asked most."""


def matrix_rate(size: int = 1024, seconds: float = 1.0) -> float:
    """Float32 FLOPs that a CPU-second does in the product of two square matrices: the best of several."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        spent = _cpu_seconds(lambda: torch.mm(left, right))
        best = max(best, 2 * size**3 / max(spent, 1e-9))
    return best


def _cpu_seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def start_up(rounds: int, commands: Iterable[str] = COMMANDS) -> dict[str, dict[str, float]]:
    """CPU and wall seconds of a process for each command; "torch, lightning" is their import.

    The commands take turns, so that a busy minute falls on all of them; the median of so many rounds.
    """
    lines = {"torch, lightning": [sys.executable, "-c", "import torch, lightning"]}
    lines |= {command: [sys.executable, "-m", "umd.cli", *command.split()] for command in commands}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            seen[name].append(_process(line))
    return {
        name: dict(zip(("cpu", "wall"), map(statistics.median, zip(*values, strict=True)), strict=True))
        for name, values in seen.items()
    }


def _process(line: list[str]) -> tuple[float, float]:
    then = time.perf_counter()
    child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0  # it has been waited for
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - then
