"""Going on with a training as if it had never stopped."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loops.evaluation_loop import RestartStage as EvaluationStage
from lightning.pytorch.loops.fit_loop import RestartStage as FitStage
from lightning.pytorch.loops.progress import (
    _OptimizationProgress,
    _ProcessedTracker,
    _Progress,
    _ReadyCompletedTracker,
    _StartedTracker,
)
from lightning.pytorch.loops.training_epoch_loop import RestartStage as EpochStage
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from umd.checkpoints import SETTINGS_KEY
from umd.files import gather_objects
from umd.protocols import CanStartInside
from umd.run.random_state import RandomState, restore_random_state, seed_afresh
from umd.run.relocate import find_best_again

logger = logging.getLogger(__name__)

UNFINISHED_KEY = "unfinished"
"""Set in a checkpoint that was asked for while an update was being made: it must not be written."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a training has come, counted in whole optimizer steps.

    Attributes:
        epoch: epochs that are over.
        batch: batches of the next epoch that are behind it.
        total: batches of all epochs.
        logged: the step that the loggers write beside the next values.
        validated: whether the validation that is due after `batch` has been.
        closed: whether the epoch's end has been called, also where the training ended inside the epoch.
        stopped: whether the training was asked to stop here, by early stopping.
        batches: batches of a whole epoch.
    """

    epoch: int
    batch: int
    total: int
    logged: int
    validated: bool
    closed: bool
    stopped: bool
    batches: float


class ExactResume(Callback):
    """Writes position and randomness into every checkpoint and goes on from there, in an epoch or between two.

    A resumed training ends with the weights, optimizer state, checkpoints and best checkpoint of one that was
    never interrupted, to the last bit on the CPU. Lightning by itself starts a half epoch from its first batch
    where the module asks for the number of steps when it makes its optimizer, leaves out the validation of an
    epoch whose checkpoint was taken after its last batch, and draws other dropout masks.

    A checkpoint taken inside an optimizer step (by a signal, an exception, a time limit amid accumulation)
    describes the step's beginning: its batches are read again. Buffers that a forward changes (a queue, running
    statistics) are then those of the moment. One asked for while the update itself is being made is marked
    `UNFINISHED_KEY`, and `umd.run.checkpoint_io` does not write it.

    Over several ranks each one's generators are kept; with another number of ranks they are seeded afresh, and
    a warning says so.

    An optimizer's settings (rate, weight decay, betas, ...) and its schedule are those of the training that goes on,
    not of the checkpoint: what a user changes counts. Only where the schedule is another one than a `LambdaLR`, whose
    settings cannot be told from its state, the checkpoint's hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self._updating = False
        self._at_epoch_start = False
        self._validated_at = -1
        self._step_began: tuple[int, int, RandomState] | None = None  # batch, total, generators
        self._restored: dict[str, Any] | None = None
        self._max_steps: int | None = None
        self._settings: list[list[dict[str, Any]]] = []  # of each optimizer's groups

    # What is written

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Until the first batch, Lightning's counters are still those of the epoch before."""
        self._at_epoch_start = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Remember where an optimizer step begins."""
        self._at_epoch_start = self._updating = False
        if batch_idx % trainer.accumulate_grad_batches == 0:
            done = trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1
            self._step_began = (batch_idx, done, RandomState.now())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """From here to the end of the batch, weights, moments, teacher and counters do not belong together."""
        self._updating = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """The update is whole."""
        self._updating = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The validation that was due here has been; checkpoint callbacks come later."""
        if not trainer.sanity_checking:
            self._validated_at = _done(trainer.fit_loop.epoch_loop.batch_progress.total)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add position and generators; logs are written out, so that they are not behind the checkpoint."""
        position, state = self._position(trainer), RandomState.now()
        if self._inside_step(trainer) and self._step_began is not None:
            state = self._step_began[2]
        kept = checkpoint.setdefault(SETTINGS_KEY, {})
        kept["position"] = asdict(position)
        kept["ranks"] = trainer.world_size
        kept["random"] = _gather_objects(trainer, state.plain())
        # Checkpoint callbacks look at the latest validation also where none has been since.
        kept["metrics"] = {name: value.cpu() for name, value in trainer.callback_metrics.items()}
        if self._updating:
            kept[UNFINISHED_KEY] = True
        for log in trainer.loggers:
            log.save()

    def _inside_step(self, trainer: Trainer) -> bool:
        loop = trainer.fit_loop.epoch_loop
        begun, done = loop.batch_progress.current.ready, _done(loop.batch_progress.current)
        return not self._at_epoch_start and (begun != done or (begun > 0 and loop._should_accumulate()))

    def _position(self, trainer: Trainer) -> Position:
        loop = trainer.fit_loop.epoch_loop
        epochs, batches = trainer.fit_loop.epoch_progress.current, loop.batch_progress
        over = _done(epochs)
        closed = over == epochs.ready
        whole = batches.is_last_batch or batches.current.ready >= trainer.num_training_batches
        batch, total, logged = _done(batches.current), _done(batches.total), loop._batches_that_stepped
        if self._inside_step(trainer) and self._step_began is not None:
            batch, total, _ = self._step_began
        elif batches.current.completed < batches.current.ready or trainer.validating:
            logged += 1  # Lightning counts after the hooks of the batch and the validation
        # Before the first epoch too: a learning-rate finder saves and restores there.
        between = (closed and whole) or self._at_epoch_start or not epochs.ready
        return Position(
            epoch=over if between or not closed else over - 1,
            batch=0 if between else batch,
            total=total,
            logged=logged,
            validated=self._validated_at == total,
            closed=closed,
            stopped=trainer.should_stop,
            batches=trainer.num_training_batches,
        )

    # What is read

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what the checkpoint says until Lightning has restored its part."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        find_best_again(trainer, checkpoint)
        _compare_answers(trainer, checkpoint)
        kept = checkpoint.get(SETTINGS_KEY, {})
        if "position" in kept:
            self._restored = {**kept, "global_step": checkpoint["global_step"]}
        else:
            logger.warning("the checkpoint does not say how far inside an epoch it is: going on is not exact")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let in a training that reached its last step and was interrupted before that epoch was closed.

        The optimizers are new here: what Lightning is about to restore replaces their settings too.
        """
        if self._restored is None:
            return
        self._settings = [
            [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        limit = trainer.fit_loop.epoch_loop.max_steps
        if self._restored["position"]["closed"]:
            return
        if 0 <= limit <= self._restored["global_step"]:
            self._max_steps = limit
            trainer.fit_loop.epoch_loop.max_steps = self._restored["global_step"] + 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go to the position, and put the generators back as the last thing before the first batch."""
        if self._restored is None:
            return
        position, states = Position(**self._restored["position"]), self._restored["random"]
        ranks = self._restored["ranks"]
        trainer.callback_metrics.update(self._restored["metrics"])
        self._restored = None
        self._set_optimizers(trainer)
        if position.batch and (position.batches, ranks) != (trainer.num_training_batches, trainer.world_size):
            logger.warning(
                "an epoch had %s batches on %d ranks and has %s on %d now: epoch %d starts from its first batch",
                position.batches,
                ranks,
                trainer.num_training_batches,
                trainer.world_size,
                position.epoch,
            )
            position = Position(**asdict(position) | {"batch": 0})
        if position.batch:
            self._go_inside(trainer, position)
        else:
            self._go_between(trainer, position)
        _forget_begun(trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress)
        loader = trainer.train_dataloader
        if isinstance(loader, CanStartInside):
            loader.start_inside(position.epoch, position.batch)
        if position.stopped and any(isinstance(callback, EarlyStopping) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            trainer.should_stop = True
        if len(states) == trainer.world_size:
            restore_random_state(states[trainer.global_rank])
        else:
            logger.warning(
                "the checkpoint is of %d ranks, now there are %d: dropout is drawn afresh", ranks, trainer.world_size
            )
            seed_afresh(trainer.global_step, trainer.global_rank)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch that had only its end to come has had it."""
        trainer.fit_loop.epoch_loop.restarting = False
        if self._max_steps is not None:
            batches = trainer.fit_loop.epoch_loop.batch_progress
            batches.is_last_batch = batches.current.ready >= trainer.num_training_batches
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None

    def _set_optimizers(self, trainer: Trainer) -> None:
        """Give the optimizers this training's settings again, and the rates that follow from them here."""
        settings_of = dict(zip(trainer.optimizers, self._settings, strict=True))
        for schedule in (config.scheduler for config in trainer.lr_scheduler_configs):
            if not isinstance(schedule, LambdaLR):
                continue
            settings = settings_of[schedule.optimizer]
            schedule.base_lrs = [group["initial_lr"] for group in settings]
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            rates = [rate * factor for rate, factor in zip(schedule.base_lrs, factors, strict=True)]
            before = [group["lr"] for group in schedule.optimizer.param_groups]
            for group, own, rate in zip(schedule.optimizer.param_groups, settings, rates, strict=True):
                group |= own | {"lr": rate}
            schedule._last_lr = rates
            if rates != before:
                logger.info(
                    "the settings or the length of the schedule changed; the learning rate goes on at %.3g "
                    "(checkpoint: %.3g), and that of other parts at their multiples of it",
                    rates[0],
                    before[0],
                )

    def _go_between(self, trainer: Trainer, position: Position) -> None:
        """To the beginning of an epoch."""
        fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        _set(fit.epoch_progress, begun=position.epoch, done=position.epoch)
        _set(loop.batch_progress, begun=0, done=0, total=position.total)
        loop.batch_progress.is_last_batch = False
        fit._restart_stage = FitStage.NONE
        loop._restart_stage = EpochStage.NONE
        loop.restarting = False
        loop._batches_that_stepped = position.logged

    def _go_inside(self, trainer: Trainer, position: Position) -> None:
        """To a place after a batch of an epoch."""
        fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        validation = loop.val_loop
        _set(fit.epoch_progress, begun=position.epoch + 1, done=position.epoch)
        _set(loop.batch_progress, begun=position.batch, done=position.batch, total=position.total)
        whole = position.batch >= trainer.num_training_batches
        loop.batch_progress.is_last_batch = whole or self._max_steps is not None
        fit._restart_stage = FitStage.RESTARTED_MID_EPOCH
        loop._restart_stage = EpochStage.RESTARTED_ON_LAST
        loop.restarting = True
        assert fit._data_fetcher is not None
        due = loop._should_check_val_fx(fit._data_fetcher)
        # Where a validation is due, Lightning goes through the end of the batch again, where it counts it.
        loop._batches_that_stepped = position.logged - int(due)
        validation._restart_stage = EvaluationStage.NONE
        if due and not position.validated:
            validation._restart_stage = EvaluationStage.RESTARTED_MID_EVALUATION
            validation.batch_progress.current.reset()
        # Without a validation to come, an epoch whose batches are all behind it ends at once.
        validation._has_run = loop.batch_progress.is_last_batch and not due
        if position.validated:
            self._validated_at = position.total


def _compare_answers(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Say which of the data's answers, or classes, the model that goes on cannot give."""
    data = getattr(trainer, "datamodule", None)
    for name in ("answers", "classes"):
        known, there = checkpoint.get("hyper_parameters", {}).get(name), getattr(data, name, None)
        if known is None or there is None or not (unknown := [one for one in there if one not in known]):
            continue
        logger.warning(
            "%d of the data's %d %s are not among those of the checkpoint, and the model keeps those: %s",
            len(unknown),
            len(there),
            name,
            ", ".join(map(str, unknown[:5])),
        )


def _done(tracker: _ReadyCompletedTracker) -> int:
    assert isinstance(tracker, _ProcessedTracker)
    return tracker.processed


def _set(progress: _Progress, begun: int, done: int, total: int | None = None) -> None:
    for tracker, extra in ((progress.current, 0), (progress.total, 0 if total is None else total - done)):
        assert isinstance(tracker, _ProcessedTracker)
        tracker.ready = tracker.started = begun + extra
        tracker.processed = tracker.completed = done + extra


def _forget_begun(progress: _OptimizationProgress) -> None:
    """Count no step, and no zeroing of gradients before it, that was begun and not ended."""
    steps, zeroed = progress.optimizer.step, progress.optimizer.zero_grad
    for ended, begun in ((steps.total, zeroed.total), (steps.current, zeroed.current)):
        assert isinstance(begun, _StartedTracker)
        ended.ready = begun.ready = begun.started = begun.completed = ended.completed


def _gather_objects(trainer: Trainer, state: dict[str, Any]) -> list[dict[str, Any]]:
    """Each rank's state; after an exception, which may be that of one rank, this rank's alone."""
    if trainer.world_size == 1 or trainer.state.status == TrainerStatus.INTERRUPTED:
        return [state]
    return gather_objects(state)
