"""A run folder while a training writes to it: one training at a time, and no traces of one that did not start."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from umd.run.checkpoint_io import remove_leftovers
from umd.run.lock import LOCK_FILE, RunLock

logger = logging.getLogger(__name__)

_REPLACED = ".replaced"


class RunFolder(Callback):
    """Holds a run folder from a training's start to its end.

    Only the process of rank 0 makes one. As a callback it learns that the training has begun: until then
    `abandon` puts the folder back as it was, and an earlier training that this one replaces is only set aside.

    Args:
        folder: the run folder.
        replace: set aside the training that is in it.
        check: raises where what is in the folder must not be mixed with this training; asked once nobody else
            can write there.

    Raises:
        BlockingIOError: another training holds the folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, replace: bool, check: Callable[[], None]) -> None:
        super().__init__()
        self.folder = folder
        self.began = False
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        self._lock = RunLock(folder)
        try:
            self._put_back()  # what a start that was killed had set aside
            check()
            remove_leftovers(folder / "checkpoints")
            self._before = set(folder.rglob("*"))
            config = folder / "config.yaml"
            self._config = config.read_bytes() if config.is_file() and not replace else None
            if replace:
                (folder / _REPLACED).mkdir()
                for path in self._own():
                    path.rename(folder / _REPLACED / path.name)
        except BaseException:
            self._lock.release()
            raise

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All that was given has proved sound: what this training replaces is deleted."""
        self.finish()

    def finish(self) -> None:
        """The training has begun, or had nothing left to do."""
        self.began = True
        shutil.rmtree(self.folder / _REPLACED, ignore_errors=True)

    def abandon(self) -> None:
        """Leave the folder as it was before a start that failed."""
        if self.began:
            return
        aside = self.folder / _REPLACED
        if aside.is_dir():
            for path in self._own():
                _delete(path)
            self._put_back()
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path not in self._before and path.name != LOCK_FILE:
                _delete(path)
        if self._config is not None:
            (self.folder / "config.yaml").write_bytes(self._config)
        if self._made:
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
        for path in self._made:
            if not any(path.iterdir()):
                path.rmdir()

    def release(self) -> None:
        """Let other trainings in."""
        self._lock.release()

    def _own(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name not in (LOCK_FILE, _REPLACED)]

    def _put_back(self) -> None:
        aside = self.folder / _REPLACED
        if not aside.is_dir():
            return
        if any((self.folder / "checkpoints").glob("*.ckpt")):
            shutil.rmtree(aside)
            return
        for path in list(aside.iterdir()):
            _delete(self.folder / path.name)
            path.rename(self.folder / path.name)
        aside.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
