"""What went wrong on the machine, in the user's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from umd.files import UserError, refused
from umd.run.settings import misfit

_MISSING_PACKAGE = re.compile(
    r"Problem with given class_path '(?P<name>[^']+)':\s*(?P<what>(Requirement|No module named)[^\n]*)"
)
_MAKES_TRAINERS = ("lightning.pytorch.trainer", "lightning.pytorch.strategies", "lightning.pytorch.accelerators")
_UNKNOWN_METRIC = re.compile(
    r"Early stopping conditioned on metric `(?P<name>[^`]+)`.*following: (?P<known>.*)", re.DOTALL
)
_DEAD_WORKER = re.compile(r"DataLoader worker.*(exited unexpectedly|is killed)", re.DOTALL)


def explained(error: BaseException, folder: Path) -> UserError | None:
    """A clear error for a full disk, a run folder that cannot be written, or a loading worker that died.

    What Lightning says of settings that do not go together is clear already, and becomes a UserError.

    Args:
        error: what ended the command.
        folder: where the command writes.

    Returns:
        The error to raise instead; None where this is nothing of the kind, or is clear already.
    """
    go_on = f"; {advice}" if (advice := _advice(folder)) else ""
    for cause in _chain(error):
        if why := refused(cause, folder):
            return UserError(f"cannot write to '{folder}': {why}. What was complete before is unharmed{go_on}")
        if isinstance(cause, RuntimeError) and _DEAD_WORKER.search(str(cause)):
            return UserError(
                f"a data loading worker died ({str(cause).split(';')[0].rstrip('. ')}): where the system killed it for "
                f"want of memory, fewer --data.num_workers need less{go_on}"
            )
    if isinstance(error, MisconfigurationException):
        return UserError(" ".join(str(error).split()))
    if isinstance(error, RuntimeError) and (unknown := _UNKNOWN_METRIC.search(str(error))):
        known = [
            name
            for name in re.findall(r"`([^`]+)`", unknown["known"])
            if "loss" in name or name.startswith("validation/")
        ]
        return UserError(f"EarlyStopping: nothing called '{unknown['name']}' is measured, but {', '.join(known)}")
    return None


def explained_start(error: BaseException) -> UserError | None:
    """A clear error for what Lightning refuses while model, data and trainer are made, or for a missing package.

    Args:
        error: what was raised then.

    Returns:
        The error to raise instead; None where this is a mistake in somebody's code.
    """
    if missing := _MISSING_PACKAGE.search(str(error)):
        return UserError(f"{missing['name'].rpartition('.')[2]}: {' '.join(missing['what'].split())}")
    if isinstance(error, MisconfigurationException) or (
        isinstance(error, ValueError | ImportError) and _raised_in(error).startswith(_MAKES_TRAINERS)
    ):
        return UserError(f"the trainer cannot be made: {' '.join(str(error).split())}")
    return None


def _raised_in(error: BaseException) -> str:
    """The module whose code raised it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return str(traceback.tb_frame.f_globals.get("__name__", "")) if traceback is not None else ""


def misfit_of(checkpoint: str | Path | None, model: nn.Module, error: BaseException) -> UserError | None:
    """What of a checkpoint does not fit, where that is what torch or Lightning complained of.

    Args:
        checkpoint: from which the command went on; None where from none.
        model: what it was read into.
        error: what ended the command.
    """
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        found = misfit(checkpoint, model.state_dict())
        return UserError(f"the weights in '{checkpoint}' do not fit the model's settings: {found}")
    if isinstance(error, ValueError) and "loaded state dict" in str(error):
        return UserError(
            f"the optimizer state in '{checkpoint}' does not fit: what is trained, or in which groups, has changed. "
            f"To start from its weights: --model.init_from {checkpoint}"
        )
    return None


def interruption(folder: Path) -> str:
    """What to do after a training was stopped by hand, in a line."""
    return f"stopped; {_advice(folder) or 'nothing was saved yet'}"


def _advice(folder: Path) -> str | None:
    last = folder / "checkpoints" / "last.ckpt"
    return f"go on with umd fit --ckpt_path {last}" if last.is_file() else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
