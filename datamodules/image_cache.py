"""A folder of arrays made of images, one file each: read by many processes, written by any of them, never half."""

from __future__ import annotations

import hashlib
import os
import time
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from datamodules.images import ImageError, ImageFile
from umd.files import writing

ABANDONED_SECONDS = 3600
"""A file that was begun so long ago belongs to a process that was killed."""


def entry_of(folder: Path, source: ImageFile) -> Path:
    """Where a folder keeps what was made of an image: as the image is now, so an image that changes gets a new entry.

    A file is told by its path, size and time of change, a stored image by its digest. To be asked for before the image
    is read: what changes while it is read is then made again.

    Raises:
        ImageError: There is no such file.
    """
    if not isinstance(source, Path):
        return folder / source.digest[:2] / f"{source.digest}.npy"
    try:
        stat = source.stat()
    except OSError:
        raise ImageError("no such file") from None
    key = hashlib.sha256(str(source.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return folder / key[:2] / f"{key}.{stat.st_size}-{stat.st_mtime_ns}.npy"


def read_entry(entry: Path) -> NDArray[np.uint8] | None:
    """The array of an entry, (H, W, 1) or (H, W, 3); None where there is none that is whole."""
    try:
        array = np.load(entry, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (1, 3) else None


def write_entry(entry: Path, array: NDArray[Any]) -> None:
    """Writes an entry whole or not at all, and removes what was made of the image as it was before.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    content = BytesIO()  # numpy itself, writing to a file, does not say that the disk is full
    np.save(content, array, allow_pickle=False)
    key = entry.name.partition(".")[0]
    temporary = entry.with_name(f"{key}.{uuid4().hex}.part")
    with writing(entry.parent):
        entry.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.getbuffer())
            os.replace(temporary, entry)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    for other in entry.parent.glob(f"{key}.*"):
        if (other.suffix == ".npy" and other != entry) or _abandoned(other):
            other.unlink(missing_ok=True)


def _abandoned(file: Path) -> bool:
    try:
        return file.suffix == ".part" and time.time() - file.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:  # it is whole by now, and has its own name
        return False
