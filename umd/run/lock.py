"""One training a run folder at a time."""

from __future__ import annotations

import json
import logging
import os
import socket
from datetime import datetime
from pathlib import Path

from umd.files import UserError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"


class RunLock:
    """The right to write into a run folder, which ends with the process at the latest, however it ends.

    A lock of the operating system on a file in the folder: what a killed process leaves holds nobody up, and a
    process forked from this one (a loading worker) does not keep it.

    Args:
        folder: the run folder; made if it is not there.

    Raises:
        UserError: another process holds it, and the message says which; or no folder can be made there.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # not of a parent, which would be made: of a place such as /proc
            raise UserError(f"cannot make the folder '{folder}': {error.strerror}. Choose another --runs") from error
        path = folder / LOCK_FILE
        self._file = path.open("a+", encoding="utf-8")
        if fcntl is None:
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = _holder(self._file.read() if self._file.seek(0) == 0 else "")
            self._file.close()
            raise UserError(
                f"'{folder}' is in use: {holder} trains in it. Wait until that ends, or take another --name"
            ) from None
        except OSError as error:
            logger.warning("'%s' cannot be locked (%s): take care that no other training writes there", folder, error)
            return
        self._file.truncate(0)
        json.dump(
            {"host": socket.gethostname(), "process": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"},
            self._file,
        )
        self._file.flush()

    def release(self) -> None:
        """Let others in."""
        self._file.close()


def _holder(text: str) -> str:
    try:
        note = json.loads(text)
        return f"process {note['process']} on {note['host']}, since {note['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"
