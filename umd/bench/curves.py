"""Cost over work: a picture with a panel for each thing that grows, and the straight line between its ends."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from umd.bench.cases import Case
from umd.bench.measured import WARM_UP, own_parts, train
from umd.bench.profiler import REFERENCE
from umd.bench.throughput import pairs
from umd.files import writing

STEPS = 4

_SWEEPS: Mapping[str, tuple[str, str, tuple[int, ...]]] = {
    "samples of a step": ("vqa", "--data.batch_size {}", (8, 16, 32, 64)),
    "patches of an image": ("vqa", "--data.batch_size 8 --model.encoder.image_size {side}", (16, 64, 144, 256)),
    "most tokens of a text": (
        "pretrain",
        "--data.batch_size 16 --data.text_length {}",
        (32, 64, 128, 256),
    ),
    "pairs in the queue": (
        "contrastive_pretrain",
        "--data.batch_size 16 --model.contrastive.queue_size {}",
        (4096, 16384, 65536),
    ),
    "processes (DDP), a step of each": (
        "vqa",
        "--trainer.devices {} --trainer.strategy ddp --trainer.accelerator cpu",
        (1, 2),
    ),
}
"""Panels: the config, the option that grows, and how far. A patch has 8 x 8 pixels."""


def measure_curves() -> dict[str, list[list[float]]]:
    """For each panel [work, cost] pairs; a cost is in CPU time, as a multiple of the reference's step beside it."""
    curves = {name: [[float(n), _step(*sweep[:2], n)] for n in sweep[2]] for name, sweep in _SWEEPS.items()}
    scored = [pairs(size) for size in (200, 400, 800)]
    curves["pairs that retrieval scores"] = [
        [float(one["pairs"]), one["pairs"] / one["pairs_per_reference_step"]] for one in scored
    ]
    return curves


def _step(config: str, option: str, amount: int) -> float:
    typed = option.format(amount, side=8 * round(amount**0.5))
    case = Case(f"{config}-{amount}", (f"{config}.yaml",), tuple(typed.split()))
    steps = train(case, STEPS + WARM_UP, with_reference=True)["steps"][WARM_UP : WARM_UP + STEPS]
    ratios = [sum(spent[0] for spent in own_parts(step).values()) / step[REFERENCE][0] for step in steps]
    return float(statistics.median(ratios))


def draw(curves: Mapping[str, list[list[float]]], path: Path) -> None:
    """Draw all panels into one picture.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    for number, (name, points) in enumerate(curves.items()):
        axes = figure.add_subplot(2, 3, number + 1)
        work, cost = zip(*points, strict=True)
        axes.plot(work[:: len(work) - 1], cost[:: len(cost) - 1], color="0.75", label="straight")
        axes.plot(work, cost, marker="o", label="measured")
        axes.set(xlabel=name, ylim=(0, 1.1 * max(cost)), xlim=(0, 1.05 * max(work)), xticks=work)
        axes.set_xticklabels([f"{amount:,.0f}" for amount in work], rotation=30)
        if not number % 3:
            axes.set_ylabel("CPU time / reference's step")
    figure.axes[0].legend(frameon=False)
    with writing(path):
        figure.savefig(path, dpi=120)
