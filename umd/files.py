"""The one leaf that all three packages share: files written whole, objects of all ranks, errors in the user's words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """What a user can mend: the command line shows its message alone, and any other error with its traceback.

    The message says what was given, what is wrong with it, and what to do.
    """


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8, its line ends as they are; a reader finds the old content or the new one, never half.

    Raises:
        OSError: the disk is full or the folder cannot be written; the earlier file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
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
