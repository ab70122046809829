"""What is said of a training while it runs is true when it is said."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel

from callbacks import ProgressFile


class Measures(BoringModel):
    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        self.log("validation/loss", self.step(batch))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"time": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["time"])
    return now


class Takes(Callback):
    """Each training batch takes so many seconds, the first one longer."""

    def __init__(self, clock: dict[str, float], first: float, others: float) -> None:
        self.clock, self.first, self.others = clock, first, others

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401
        self.clock["time"] += self.first if trainer.global_step == 0 else self.others


def fit(folder: Path, *callbacks: Callback, **arguments: Any) -> None:  # noqa: ANN401
    trainer = Trainer(
        default_root_dir=folder,
        callbacks=[*callbacks],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=1,
        **arguments,
    )
    trainer.fit(Measures())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if message.startswith("epoch ")]


def test_an_epochs_line_repeats_no_validation_that_was_not_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fit(tmp_path, ProgressFile(), max_epochs=4, limit_train_batches=1, check_val_every_n_epoch=2)
    assert ["validation/loss" in line for line in lines(caplog)] == [False, True, False, True]


def test_a_slow_first_step_does_not_count(
    tmp_path: Path, clock: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    """Of 30 steps the first takes 290 s and each other one 2 s: after ten, 40 s are left."""
    with caplog.at_level("INFO"):
        fit(tmp_path, Takes(clock, 290, 2), ProgressFile(0), max_epochs=3, limit_train_batches=10)
    assert [line.rpartition(", ")[2] for line in lines(caplog)[:2]] == ["0:00:40 left", "0:00:20 left"]
    assert "left" not in lines(caplog)[2]
    assert json.loads((tmp_path / "progress.json").read_text())["seconds_left"] == 0


def test_no_time_is_told_from_one_step(
    tmp_path: Path, clock: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fit(tmp_path, Takes(clock, 290, 290), ProgressFile(0), max_epochs=3, limit_train_batches=1)
    assert ["left" in line for line in lines(caplog)] == [False, True, False]


def test_a_training_past_its_planned_end_has_no_time_left(
    tmp_path: Path, clock: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    """As one that goes on with fewer batches an epoch than it had."""

    class Late(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401
            trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed += 50

    with caplog.at_level("INFO"):
        fit(tmp_path, Late(), Takes(clock, 1, 1), ProgressFile(0), max_epochs=2, limit_train_batches=5)
    assert not [line for line in lines(caplog) if "left" in line]
