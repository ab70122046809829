"""One learning rate in the logs, whatever the number of groups."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from callbacks import LearningRate


class TwoGroups(BoringModel):
    def configure_optimizers(self) -> torch.optim.Optimizer:  # type: ignore[override]
        groups = [{"params": [self.layer.weight], "lr": 0.1}, {"params": [self.layer.bias], "lr": 1.0}]
        return torch.optim.SGD(groups)

    def on_train_batch_end(self, *_: object) -> None:
        optimizer = self.trainer.optimizers[0]
        for group in optimizer.param_groups:
            group["lr"] /= 2


def test_each_step_has_the_rate_that_it_was_made_with(tmp_path: Path) -> None:
    trainer = Trainer(
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=[LearningRate()],
        max_steps=3,
        log_every_n_steps=1,
        limit_val_batches=0,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(TwoGroups())
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [name for name in rows[0] if "lr" in name or "rate" in name] == ["learning_rate"]
    assert [float(row["learning_rate"]) for row in rows] == [0.1, 0.05, 0.025]
