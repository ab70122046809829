"""How far a training is: in a small file for whoever watches from another process, and in lines for a log."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from umd.files import write_whole


class ProgressFile(Callback):
    """Writes `progress.json` into the run folder (`default_root_dir`), at most once every few seconds.

    It holds `step` and `steps` (optimizer steps done, and of the whole training), `epoch` (the running one, from 1)
    and `epochs` (null where the training is counted in steps), `started_at_step` (where this process began),
    `seconds` (since then) and `seconds_left` (null while unknown). The file is replaced in one move, so that a reader
    never finds half of one.

    Where no progress bar is shown, each epoch ends with a line: its number, what was measured in it, and the time
    left. That is told from the pace of all steps but this process's first, in which compilers and caches warm up.

    Args:
        seconds: shortest time between two writings.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._began = 0.0
        self._first = 0
        self._warm: tuple[float, int] | None = None  # when the first step was over, and its number
        self._validated = False
        self._written = float("-inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where this process begins."""
        self._began, self._first = time.monotonic(), trainer.global_step
        self._warm, self._validated = None, False
        self._write(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Write, if the last time is long enough ago."""
        if self._warm is None and trainer.global_step > self._first:
            self._warm = time.monotonic(), trainer.global_step
        if time.monotonic() - self._written >= self.seconds:
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What it measured goes into the epoch's line, once."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how it stands; of the validation only where there was one in this epoch."""
        validated, self._validated = self._validated, False
        if trainer.progress_bar_callback is not None:
            return
        progress = self._progress(trainer)
        of = f" of {progress['epochs']}" if progress["epochs"] else ""
        measured = [
            f"{name} {float(value):.4g}"
            for name, value in sorted(trainer.callback_metrics.items())
            if name == "train/loss" or (validated and name.startswith("validation/"))
        ]
        seconds = round(progress["seconds_left"] or 0)
        time_left = [f"{timedelta(seconds=seconds)} left"] if seconds else []
        rank_zero_info("%s", ", ".join([f"epoch {trainer.current_epoch + 1}{of}", *measured, *time_left]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._written = time.monotonic()
        path = Path(trainer.default_root_dir) / "progress.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(self._progress(trainer)))

    def _progress(self, trainer: Trainer) -> dict[str, Any]:
        epochs = trainer.max_epochs
        return {
            "step": trainer.global_step,
            "steps": int(trainer.estimated_stepping_batches),
            "epoch": min(trainer.current_epoch + 1, epochs) if epochs and epochs > 0 else trainer.current_epoch + 1,
            "epochs": epochs if epochs and epochs > 0 else None,
            "started_at_step": self._first,
            "seconds": round(time.monotonic() - self._began, 1),
            "seconds_left": self._seconds_left(trainer),
        }

    def _seconds_left(self, trainer: Trainer) -> float | None:
        made = trainer.global_step - self._warm[1] if self._warm else 0
        if self._warm is None or made <= 0:
            return None
        left = max(0, int(trainer.estimated_stepping_batches) - trainer.global_step)
        return round((time.monotonic() - self._warm[0]) * left / made, 1)
