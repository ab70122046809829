"""Slurm's signal that a job is about to end, answered between two optimizer steps."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer


class RequeueBetweenSteps(Callback):
    """Has Lightning's answer to Slurm's signal wait for the end of the optimizer step.

    Lightning saves and asks for the job again at once, wherever the signal comes: in the middle of a forward or of
    an update, where weights, moments and counters do not belong together. Outside Slurm this does nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._answer: Callable[[int, FrameType | None], Any] | None = None
        self._received: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stand before Lightning's handler, which is registered by now and goes with the training."""
        self._answer = self._received = None
        environment = trainer._accelerator_connector.cluster_environment
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return
        number = environment.requeue_signal or signal.SIGUSR1
        answer = signal.getsignal(number)
        if callable(answer):
            self._answer = answer
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Answer, on all ranks together, once the step is whole."""
        if not trainer.fit_loop._should_accumulate():
            self._answer_now(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Answer in a long validation too; several ranks need not have as many batches of it."""
        if trainer.world_size == 1 and not trainer.sanity_checking:
            self._answer_now(trainer)

    def _answer_now(self, trainer: Trainer) -> None:
        if self._answer is None:
            return
        if trainer.strategy.reduce_boolean_decision(self._received is not None, all=False):
            number, self._received = self._received or signal.SIGUSR1, None
            self._answer(number, None)
