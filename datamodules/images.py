"""Images: found inside the data set's root only, decoded to RGB, checked once, kept small on request."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from datamodules.dicom import is_dicom, read_dicom
from umd.files import UserError

CACHE_MARGIN = 1.15
"""A cached image's shorter side over the image size: what a crop of 90 % of the area needs and some."""

MAX_PIXELS = 89_478_485
"""Larger images are refused (Pillow's own limit, from which on it only warns)."""


AT_ONCE = 1000
"""Images that are queued for checking: a queue of all of a large corpus would take more memory than their rows."""

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
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        values -= min(0.0, float(values.min()))
        bits = max(8, int(values.max()).bit_length())
        return Image.fromarray(np.round(values * (255 / (2**bits - 1))).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def decode(source: ImageFile) -> Image.Image:
    """Reads an image whole: 8-bit RGB, turned as its EXIF orientation says; DICOM as `read_dicom` does.

    Raises:
        ImageError: The file is missing, is no image, breaks off, or has more than `MAX_PIXELS` pixels.
    """
    if isinstance(source, Path) and not source.is_file():
        raise ImageError("no such file")
    file = source if isinstance(source, Path) else BytesIO(source.read())
    try:
        if is_dicom(file):
            return read_dicom(file, MAX_PIXELS).convert("RGB")
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:  # decoders let errors of many kinds pass when a file is broken
        named = str(file)
        raise ImageError(
            str(error).replace(f" {named!r}", "").replace(f" {named}", "").replace(named, "the file")
            or type(error).__name__
        ) from error


class ImageStore:
    """Loads images, through a folder of decoded copies if one is given.

    The folder holds one `.npy` a image (uint8, (H, W, 3), or (H, W) where the three channels agree), scaled
    down so that the shorter side has at most `image_size * CACHE_MARGIN` pixels. Pixels that come from it are
    therefore resampled twice and differ slightly from those read without it. An entry is named by the file's
    path, size and time of change, or by the digest of a stored image, so a changed image gets a new one; an entry
    that cannot be read is made again.

    Args:
        image_size: Side of the images that training will ask for, in pixels.
        cache: Folder for the decoded copies; None: decode at every load.
    """

    def __init__(self, image_size: int, cache: Path | None = None) -> None:
        self.shorter_side = int(image_size * CACHE_MARGIN) + 1
        self.cache = cache

    def check(
        self, images: Iterable[ImageFile], seen: Callable[[int], object] = lambda count: None
    ) -> dict[ImageFile, str]:
        """Decodes every image once, on all cores, filling the cache if there is one.

        Images that the cache holds already are not decoded again.

        Args:
            images: The images; those that lie together in a file best follow each other.
            seen: Is told how many more were looked at.

        Returns:
            The images that cannot be used, and why.
        """

        def reason(image: ImageFile) -> str | None:
            try:
                entry = self._entry(image)
                if entry is None:
                    decode(image)
                elif not entry.exists():
                    self._fill(image, entry)
            except ImageError as error:
                return str(error)
            return None

        def reasons(images: list[ImageFile]) -> list[tuple[ImageFile, str | None]]:
            return [(image, reason(image)) for image in images]

        together = [list(images) for _, images in groupby(images, key=_container)]
        bad: dict[ImageFile, str] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads do: decoders let go of the interpreter
            for start in range(0, len(together), AT_ONCE):
                for found in pool.map(reasons, together[start : start + AT_ONCE]):
                    bad |= {image: why for image, why in found if why}
                    seen(len(found))
        return bad

    def load(self, source: ImageFile) -> Image.Image:
        """The image in RGB, from the cache where there is one.

        Raises:
            ImageError: It cannot be decoded, though `check` could: the file changed during the run. Names the
                file.
        """
        try:
            entry = self._entry(source)
            if entry is None:
                return decode(source)
            try:
                array = np.load(entry, allow_pickle=False)
                if array.dtype == np.uint8 and array.ndim in (2, 3):
                    return Image.fromarray(array).convert("RGB")
            except (OSError, ValueError, EOFError):
                pass  # absent or broken off: made again below
            return self._fill(source, entry)
        except ImageError as error:
            raise ImageError(f"{source}: {error} (it could be read when the run began)") from error

    def _entry(self, source: ImageFile) -> Path | None:
        """Where the cache keeps this image."""
        if self.cache is None:
            return None
        if isinstance(source, Path):
            try:
                stat = source.stat()
            except OSError:
                raise ImageError("no such file") from None
            key = f"{source.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{self.shorter_side}"
        else:
            key = f"{source.digest}|{self.shorter_side}"
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.cache / name[:2] / f"{name}.npy"

    def _fill(self, source: ImageFile, entry: Path) -> Image.Image:
        """Decodes, scales down and writes one entry; a reader never sees half of it."""
        image = decode(source)
        if (scale := self.shorter_side / min(image.size)) < 1:
            width, height = (max(1, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        array = np.asarray(image)
        if (array == array[..., :1]).all():
            array = array[..., 0]
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=entry.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array, allow_pickle=False)
            os.replace(temporary, entry)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return image


def _container(source: ImageFile) -> Hashable:
    return source if isinstance(source, Path) else source.container
