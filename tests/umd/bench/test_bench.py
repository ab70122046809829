"""The tool that measures: parts that add up, a yardstick that leaves no trace, comparisons as ratios of ratios."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from umd.bench.__main__ import main
from umd.bench.cases import embedded
from umd.bench.measured import part_of
from umd.bench.profiler import FETCH, REFERENCE, REST, CostProfiler
from umd.bench.reference import Reference
from umd.bench.tables import commands, steps
from umd.files import UserError


def test_a_part_is_charged_for_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    monkeypatch.setattr(time, "perf_counter", lambda: 2 * clock[0])
    profiler = CostProfiler(str(tmp_path / "costs.json"))

    def passing(seconds: float) -> None:
        clock[0] += seconds

    passing(1)
    with profiler.profile(FETCH):
        passing(2)
        with profiler.profile("optimizer_step"):
            passing(3)
            with profiler.profile("backward"):
                passing(4)
            passing(5)
    passing(6)
    profiler.teardown("fit")
    before, step = json.loads((tmp_path / "costs.json").read_text())["steps"]
    assert before == {REST: [1, 2]}
    assert step == {FETCH: [2, 4], "optimizer_step": [8, 16], "backward": [4, 8], REST: [6, 12]}


class Noisy(LightningModule):
    """A model whose training draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = (self.layer(batch) - torch.randn(4)).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(tmp_path: Path, callbacks: list[Any]) -> tuple[Tensor, dict[str, Any]]:
    torch.manual_seed(0)
    model, path = Noisy(), tmp_path / "costs.json"
    profiler = CostProfiler(path.name)  # in the run's folder
    trainer = Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        profiler=profiler,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, DataLoader(list(torch.ones(8, 4)), batch_size=1))  # type: ignore[arg-type]
    return model.layer.weight.detach(), json.loads(path.read_text())


def test_the_reference_is_timed_at_each_step_and_changes_no_training(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path, [])
    weights, costs = trained(tmp_path, [Reference(width=16, layers=1, heads=2, tokens=4, samples=2)])
    torch.testing.assert_close(weights, plain, rtol=0, atol=0)
    assert [REFERENCE in step for step in costs["steps"][1:4]] == [True] * 3
    # One Linear on one row, whose input needs no gradient: forward and the weight's gradient, 2 x 4 x 4 each.
    assert costs["facts"]["flops"] == 2 * 2 * 4 * 4
    # Every action that Lightning named belongs somewhere; none of the trainer's main ones is among the rest.
    parts = {part_of(action) for step in costs["steps"] for action in step}
    assert {"data", "forward", "backward", "optimizer", "Reference"} <= parts


def shown(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as caught:
        console.print(table)
    return caught.get()


def test_earlier_figures_stand_beside_as_ratios_of_ratios() -> None:
    now = {"name": "vqa", "ratio": 0.6, "cpu": 1.0, "wall": 1.0, "flops": 1, "rate": 0.5, "peak_mb": 1.0, "parts": {}}
    row = next(line for line in shown(steps([now], {"vqa": {**now, "ratio": 0.8}})).splitlines() if "vqa" in line)
    assert row.rstrip(" │|").endswith("0.75")

    def started(imported: float, command: float) -> dict[str, dict[str, float]]:
        spent = {"torch, lightning": imported, "fit --help": command}
        return {name: {"cpu": seconds, "wall": seconds} for name, seconds in spent.items()}

    # Twice as slow a machine, and the command takes half of what it did in terms of the import.
    text = shown(commands(started(20.0, 20.0), started(10.0, 20.0)))
    assert next(line for line in text.splitlines() if "fit" in line).rstrip(" │|").endswith("0.50")


def test_what_cannot_be_measured_or_compared_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no case nonsense; there are pretrain, calibrate"):
        main(["--cases", "nonsense", "--start_up", "0", "--out", str(tmp_path / "bench.json")])
    (tmp_path / "old.json").write_text("[]")
    with pytest.raises(UserError, match="no figures of `make bench`"):
        main(["--compare", str(tmp_path / "old.json")])
    assert {case.name for case in embedded()} >= {"pretrain", "calibrate", "vqa", "retrieval", "classification"}


@pytest.mark.slow
def test_one_case_from_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    main(["--cases", "vqa", "--steps", "2", "--start_up", "0", "--out", str(out)])
    figures = json.loads(out.read_text())
    (case,) = figures["cases"]
    assert abs(sum(case["parts"].values()) / case["cpu"] - 1) < 0.2
    assert {"data", "forward", "backward", "optimizer", "ModalityCoordination", "WeightPerturbation"} <= set(
        case["parts"]
    )
    assert 0 < case["rate"] < 1
