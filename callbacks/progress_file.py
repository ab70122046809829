"""How far a training is, as a small file in its run folder: for whoever watches from another process."""

from __future__ import annotations

import json
import time
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from callbacks.files import write_whole


class ProgressFile(Callback):
    """Writes `progress.json` into the run folder (`default_root_dir`), at most once every few seconds.

    It holds `step` and `steps` (optimizer steps done, and of the whole training), `epoch` (the running one, from 1)
    and `epochs` (null where the training is counted in steps), `started_at_step` (where this process began) and
    `seconds` (since then). The file is replaced in one move, so that a reader never finds half of one.

    Args:
        seconds: shortest time between two writings.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._began = 0.0
        self._first = 0
        self._written = float("-inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where this process begins."""
        self._began, self._first = time.monotonic(), trainer.global_step
        self._write(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Write, if the last time is long enough ago."""
        if time.monotonic() - self._written >= self.seconds:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._written = time.monotonic()
        epochs = trainer.max_epochs
        progress = {
            "step": trainer.global_step,
            "steps": int(trainer.estimated_stepping_batches),
            "epoch": min(trainer.current_epoch + 1, epochs) if epochs and epochs > 0 else trainer.current_epoch + 1,
            "epochs": epochs if epochs and epochs > 0 else None,
            "started_at_step": self._first,
            "seconds": round(self._written - self._began, 1),
        }
        path = Path(trainer.default_root_dir) / "progress.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(progress))
