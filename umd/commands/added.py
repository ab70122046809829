"""What `umd fit|validate|test|predict` adds to what the configs ask for, each with its reason.

Two more are made elsewhere: `ConfigFile` below by LightningCLI, and `umd.run.folder.RunFolder` by
`umd.commands.train` once the trainer is there: it holds the run folder, so that no other training writes there, and
puts it back as it was if this one never begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelSummary, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from callbacks import FiniteGuard, PredictionWriter, ProgressFile, ResultsTable
from datamodules.base import ImageTextDataModule
from umd.commands.model_table import ModelTable
from umd.protocols import HasReport
from umd.run.checkpoint_io import AtomicCheckpointIO
from umd.run.requeue import RequeueBetweenSteps
from umd.run.resume import ExactResume
from umd.run.settings import TrainerSettings

_AVERAGING = (WeightAveraging, StochasticWeightAveraging)


class ModuleFirst(Callback):
    """Sets the module up before the other callbacks are set up.

    Those that average weights copy the module then, and Lightning sets it up after them: a head whose size is known
    only from the data would be missing in the copy.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Call the module's own, which Lightning calls once more, to no effect."""
        pl_module.setup(stage)


class TestSplitFirst(Callback):
    """Looks at the test split when a training starts, and not after hours of it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check its images.

        Raises:
            UserError: not one of its rows can be used.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and isinstance(data, ImageTextDataModule) and data.has_test_split:
            data.look_at("test")


class ConfigFile(SaveConfigCallback):
    """Writes the resolved config into the run folder; Lightning's would follow the first logger."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`."""
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=True)


def with_added_callbacks(
    command: str, model: LightningModule, given: Sequence[Callback], config: Mapping[str, Any]
) -> list[Callback]:
    """The callbacks of a command: the configs' own, with ours around them.

    Args:
        command: "fit", "validate", "test" or "predict".
        model: the stage.
        given: the configs' own; a `FiniteGuard`, `PredictionWriter` or `ModelSummary` among them takes the place
            of ours.
        config: the resolved config of the command, in plain types.
    """
    training, reports = command == "fit", isinstance(model, HasReport)
    before: list[Callback] = []
    added: list[Callback] = []
    if training:
        if any(isinstance(callback, _AVERAGING) for callback in given):
            before.append(ModuleFirst())  # they copy the module, and its head must be there
        added.append(TrainerSettings(config))  # so that a training can go on from a checkpoint alone
        added.append(ExactResume())  # so that one that was interrupted ends as one that never was
        added.append(RequeueBetweenSteps())  # Slurm's signal may come in the middle of an update
        if reports and config.get("test_after_fit", True):
            added.append(TestSplitFirst())  # the training ends with a test
        added.append(ProgressFile())  # for whoever watches from another process, or reads a log
    if training and config["trainer"].get("enable_model_summary") is not False and not _holds(given, ModelSummary):
        added.append(ModelTable())  # what is trained, and how large it is
    if reports:
        added.append(ResultsTable())  # the table that `umd compare` and the papers' tables are made of
    # Here and not above: they bring pandas, which takes half a second, and help and what is mistyped are said first.
    from umd.commands.calibration import Calibration
    from umd.commands.controls import Controls

    if command == "test" or (training and reports):
        added.append(Calibration(picture=command == "test"))  # what a confidence is worth
    if command == "test" and config.get("controls"):
        added.append(Controls())  # the same questions asked otherwise
    if training and not _holds(given, FiniteGuard):
        added.append(FiniteGuard())  # a nan would go on unnoticed, into all checkpoints
    if (reports or command == "predict") and not _holds(given, PredictionWriter):
        added.append(PredictionWriter())  # each answer, for paired tests and for a look at the mistakes
    return [*before, *given, *added]


def with_added_loggers(
    command: str, given: Logger | Iterable[Logger] | bool | None, folder: Path
) -> list[Logger] | bool:
    """The loggers of a command: a training's logs, where its checkpoints are, and beside them those that were given.

    Ours come first: Lightning puts the checkpoints where the first logger writes.

    Args:
        command: "fit", "validate", "test" or "predict".
        given: the configs' own; False: none at all.
        folder: the run folder.
    """
    if given is False:
        return False
    own: list[Logger] = []
    if command == "fit":
        own.append(TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False))  # for the eye
        own.append(CSVLogger(str(folder), name="csv"))  # for a table or a figure
    beside = [] if given is None or given is True else [given] if isinstance(given, Logger) else list(given)
    return [*own, *beside] or False


def with_atomic_writing(plugins: Any, strategy: Any) -> list[Any]:  # noqa: ANN401 - Lightning's own are unions
    """The plugins, and one that writes checkpoints atomically where the user has none that writes them."""
    given = list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    writes = [*given, getattr(strategy, "_checkpoint_io", None)]
    return given if any(isinstance(plugin, CheckpointIO) for plugin in writes) else [*given, AtomicCheckpointIO()]


def _holds(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)
