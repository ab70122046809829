"""The one leaf that all three packages share: files written whole, objects of all ranks, errors in the user's words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """What a user can mend: the command line shows its message alone, and any other error with its traceback.

    The message says what was given, what is wrong with it, and what to do.
    """


_REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EEXIST,
}


def refused(error: BaseException, where: Path) -> str | None:
    """Why the machine would not let a file or folder be written, in its own words; None for any other error.

    Args:
        error: what was raised; a full disk says nothing of a file.
        where: the file or folder; what concerns neither it, nor what is in it or above it, is another error.
    """
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    if error.filename is not None:
        named, wanted = Path(str(error.filename)).absolute(), where.absolute()
        if named != wanted and wanted not in named.parents and named not in wanted.parents:
            return None
    return error.strerror


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """While a file or folder is written, make what the machine refuses a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        why = refused(error, where)
        if why is None:
            raise
        raise UserError(f"cannot write '{error.filename or where}': {why}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8, its line ends as they are; a reader finds the old content or the new one, never half.

    Raises:
        UserError: the disk is full or the folder cannot be written; the earlier file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path.parent):
        try:
            temporary.write_text(text, encoding="utf-8", newline="")
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def gather_objects(mine: T) -> list[T]:
    """What each rank brings, in the order of the ranks, on every rank; all of them must call this."""
    from torch import distributed  # not above: the command line asks for errors without waiting for torch

    if not (distributed.is_available() and distributed.is_initialized()):
        return [mine]
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, mine)
    return everyone
