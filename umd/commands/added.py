"""What `umd fit|validate|test|predict` adds to what the configs ask for, each with its reason.

One more callback, `umd.run.folder.RunFolder`, is added by `umd.commands.train` once the trainer is there: it holds
the run folder, so that no other training writes there, and puts it back as it was if this one never begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from callbacks import FiniteGuard, PredictionWriter, ProgressFile, ResultsTable
from umd.protocols import HasReport
from umd.run.checkpoint_io import AtomicCheckpointIO
from umd.run.requeue import RequeueBetweenSteps
from umd.run.resume import ExactResume
from umd.run.settings import TrainerSettings


def added_callbacks(
    command: str, model: LightningModule, given: Sequence[Callback], config: Mapping[str, Any]
) -> list[Callback]:
    """The callbacks that stand behind the configs' own.

    Args:
        command: "fit", "validate", "test" or "predict".
        model: the stage.
        given: the configs' own; a `FiniteGuard` or `PredictionWriter` among them takes the place of ours.
        config: the resolved config of the command, in plain types.
    """
    training, reports = command == "fit", isinstance(model, HasReport)
    added: list[Callback] = []
    if training:
        added.append(TrainerSettings(config))  # so that a training can go on from a checkpoint alone
        added.append(ExactResume())  # so that one that was interrupted ends as one that never was
        added.append(RequeueBetweenSteps())  # Slurm's signal may come in the middle of an update
        added.append(ProgressFile())  # for whoever watches from another process, or reads a log
    if reports:
        added.append(ResultsTable())  # the table that `umd compare` and the papers' tables are made of
    if training and not _holds(given, FiniteGuard):
        added.append(FiniteGuard())  # a nan would go on unnoticed, into all checkpoints
    if (reports or command == "predict") and not _holds(given, PredictionWriter):
        added.append(PredictionWriter())  # each answer, for paired tests and for a look at the mistakes
    return added


def added_loggers(folder: Path) -> list[Logger]:
    """A training's logs, where its checkpoints are: for the eye (TensorBoard), and for a table (CSV)."""
    return [
        TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False),
        CSVLogger(str(folder), name="csv"),
    ]


def with_atomic_writing(plugins: Any, strategy: Any) -> list[Any]:  # noqa: ANN401 - Lightning's own are unions
    """The plugins, and one that writes checkpoints atomically where the user has none that writes them."""
    given = list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    writes = [*given, getattr(strategy, "_checkpoint_io", None)]
    return given if any(isinstance(plugin, CheckpointIO) for plugin in writes) else [*given, AtomicCheckpointIO()]


def _holds(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)
