"""Images: found inside the data set's root only, and decoded."""

from __future__ import annotations

from collections.abc import Hashable
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps

from datamodules.dicom import is_dicom, read_dicom
from umd.files import UserError

MAX_PIXELS = 89_478_485
"""Larger images are refused (Pillow's own limit, from which on it only warns)."""

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Others that Pillow knows run programs of their own (PostScript) or are no images of a data set."""


class ImageError(UserError):
    """An image that cannot be used; the message says why and does not name the file."""


class StoredImage(Protocol):
    """An image that is no file of its own but lies in one with others; hashable, and small enough to send about."""

    @property
    def digest(self) -> str:
        """SHA-256 of its bytes, which names it in the cache."""
        ...

    @property
    def container(self) -> Hashable:
        """What it lies in: images of one container are read in one go if they are asked for in their order."""
        ...

    def read(self) -> bytes:
        """Its bytes, as a file of its own would hold them.

        Raises:
            ImageError: They are not there any more, or are others now.
        """
        ...


ImageFile: TypeAlias = Path | StoredImage


def is_inside(name: str) -> bool:
    """Whether a path that a data set's file gives stays in the folder it is relative to.

    Links that the user made inside that folder are followed; absolute paths and `..` are not.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    whole = "\0" not in name and not any("\ud800" <= character <= "\udfff" for character in name)
    return bool(name) and whole and not path.is_absolute() and ".." not in path.parts


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB.

    Deep grey values (16 or 32 bits) are scaled from the smallest bit depth that holds the largest of them
    (12-bit radiographs come in 16-bit files), never clipped. Transparency is laid on white, as on a page.
    Grey is repeated.
    """
    return _to_8_bits(image).convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """As `to_rgb`, but grey stays one channel ("L")."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        values -= min(0.0, float(values.min()))
        bits = max(8, int(values.max()).bit_length())
        return Image.fromarray(np.round(values * (255 / (2**bits - 1))).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def decode(source: ImageFile) -> Image.Image:
    """Reads an image whole: 8-bit RGB, turned as its EXIF orientation says; DICOM as `read_dicom` does.

    Raises:
        ImageError: The file is missing, is no image, breaks off, or has more than `MAX_PIXELS` pixels.
    """
    return decode_as_grey_or_rgb(source)[0].convert("RGB")


def decode_as_grey_or_rgb(source: ImageFile, draft_side: int | None = None) -> tuple[Image.Image, tuple[float, float]]:
    """As `decode`, but in one channel ("L") where all three agree: a third of the work for whatever resizes it.

    Args:
        source: The image.
        draft_side: A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (Pillow's draft mode: fewer of each block's cosines
            are transformed back), as long as no side gets shorter than so many pixels. None: always whole.

    Returns:
        The image, and the width and height of what it shows, in its own pixels: of a size that cannot be halved, draft
        mode adds a part of a pixel on the right and below.

    Raises:
        ImageError: As in `decode`.
    """
    if isinstance(source, Path) and not source.is_file():
        raise ImageError("no such file")
    file = source if isinstance(source, Path) else BytesIO(source.read())
    try:
        if is_dicom(file):
            image = _one_channel_if_grey(read_dicom(file, MAX_PIXELS))
            return image, image.size
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ImageError(f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS:,}")
            # A turned image is decoded whole: what is added would lie at another edge.
            if draft_side is not None and opened.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                drafted = opened.draft(opened.mode, (draft_side, draft_side))
            else:
                drafted = None
            opened.load()
            image = _one_channel_if_grey(_to_8_bits(ImageOps.exif_transpose(opened)))
            return image, drafted[1][2:] if drafted is not None else image.size
    except ImageError:
        raise
    except Exception as error:  # decoders let errors of many kinds pass when a file is broken
        named = str(file)
        raise ImageError(
            str(error).replace(f" {named!r}", "").replace(f" {named}", "").replace(named, "the file")
            or type(error).__name__
        ) from error


def _one_channel_if_grey(image: Image.Image) -> Image.Image:
    if image.mode == "L":
        return image
    red, green, blue = image.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else image
