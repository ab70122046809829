"""Checkpoint files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.fabric.utilities.types import _PATH
from torch import Tensor

from umd.checkpoints import SETTINGS_KEY
from umd.run.resume import UNFINISHED_KEY

logger = logging.getLogger(__name__)

_ENDING = ".part"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, makes sure that it is on the disk, and puts it there in one move.

    So a name such as `last.ckpt` stands for the old file or for the new one, both complete, even after
    `kill -9` or a power cut. What an interrupted writing leaves is a file of another ending, which
    `remove_leftovers` deletes.

    Raises:
        OSError: the disk is full or the folder cannot be written; the earlier file is as it was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Write a checkpoint, but not one that was asked for in the middle of an update."""
        if checkpoint.get(SETTINGS_KEY, {}).pop(UNFINISHED_KEY, False):
            logger.warning("'%s' is not written: the weights were just being updated", path)
            return
        if storage_options is not None or get_filesystem(path).protocol[0] != "file":
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{socket.gethostname()}-{os.getpid()}{_ENDING}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            _sync_folder(target.parent)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            cause = _system_error(error)
            if cause is None:
                raise
            raise OSError(
                cause.errno,
                f"cannot write the checkpoint '{target}' ({_size(checkpoint) / 2**20:,.0f} MB): {cause.strerror}. "
                + ("The earlier one is as it was" if target.is_file() else "There is no earlier one of that name"),
            ) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what interrupted writings left in a folder that no other training writes to now."""
    for path in folder.glob(f".*.ckpt.*{_ENDING}"):
        path.unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> OSError | None:
    """The operating system's own error: torch's writer may wrap it into one of its own."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _sync_folder(folder: Path) -> None:
    """Make the move itself last, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _size(value: object) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return 0
