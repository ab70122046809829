"""Images on their way to a page and back: a file's bytes in, PNG and JPEG as text out; nothing goes to a disk."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from datamodules.images import ImageError, decode
from umd.files import UserError

PNG = "data:image/png;base64,"
THUMBNAIL = 88
"""Pixels of the longer side of a small picture, in a list."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The content of a file that is on no disk; see `datamodules.images.StoredImage`."""

    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def container(self) -> Hashable:
        """Itself."""
        return self

    def read(self) -> bytes:
        """The bytes."""
        return self.content


def decoded(content: bytes) -> Image.Image:
    """The image in the bytes of a file, as the data modules read it: 8-bit RGB, within their bounds.

    Raises:
        UserError: it is none, is broken, or has too many pixels.
    """
    try:
        return decode(Uploaded(content))
    except ImageError as error:
        raise UserError(f"this image cannot be read: {error}") from error


def from_png(text: object) -> Image.Image:
    """The image that `as_png` has written.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(text, str) or not text.startswith(PNG):
        raise UserError("this is no image of the page: choose one again")
    try:
        return decoded(base64.b64decode(text.removeprefix(PNG), validate=True))
    except (binascii.Error, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"this is no image of the page: {error}") from error


def as_png(image: Image.Image) -> str:
    """Every pixel, as an address that a page shows without asking for it."""
    return PNG + _encoded(image, "PNG")


def as_jpeg(image: Image.Image, side: int) -> str:
    """For the eye alone, its longer side no more than so many pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    return "data:image/jpeg;base64," + _encoded(small, "JPEG", quality=90)


def _encoded(image: Image.Image, kind: str, **options: int) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")
