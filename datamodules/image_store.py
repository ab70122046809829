"""The images of a data set on their way to a batch: checked once, and ready to be cropped if a cache is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules.fitting import fit
from datamodules.image_cache import entry_of, read_entry, write_entry
from datamodules.images import ImageError, ImageFile, decode, decode_as_grey_or_rgb
from datamodules.transforms import augmented_view_transform, random_crop_transform, square_transform

MARGIN = 1.15
"""Shorter side of an image to crop at random over the image size: what 90 % of the area need and some."""

AT_ONCE = 1000
"""Images that are queued for checking: a queue of all of a large corpus would take more memory than their rows."""

VERSION = 1
"""Of the cache's pixels: a number up, and no entry of before is used any more."""


class ImageStore:
    """Loads images as the transforms of a training or an evaluation take them, through a cache if one is given.

    The cache holds one array an image, use and image size. For evaluation, and for training without random crops,
    that is the square itself: the same pixels as without a cache. For random crops it is the whole image, scaled
    down so that the shorter side has at most `image_size * MARGIN` pixels: a crop of it is resampled twice, the second
    time by torch and not by Pillow, and its pixels differ slightly.

    Args:
        image_size: Side of the squares that come out, in pixels.
        cache: Folder for the arrays; None: decode at every load.
        random_resized_crop: Training takes random crops.
        augmented: Training takes augmented views, in the place of random crops.
        jpeg_draft: Decode large JPEGs at a fraction of their size (see `decode_as_grey_or_rgb`).
    """

    def __init__(
        self,
        image_size: int,
        cache: Path | None = None,
        *,
        random_resized_crop: bool = True,
        augmented: bool = False,
        jpeg_draft: bool = False,
    ) -> None:
        self.image_size = image_size
        self.cache = cache
        self.random_resized_crop = random_resized_crop
        self.augmented = augmented
        self.shorter_side = int(image_size * MARGIN) + 1
        self.draft_side = self.shorter_side if jpeg_draft else None

    def check(
        self,
        images: Iterable[ImageFile],
        seen: Callable[[int], object] = lambda count: None,
        *,
        training: bool = False,
    ) -> dict[ImageFile, str]:
        """Decodes every image once, on all cores, filling the cache if there is one.

        Images that the cache holds already are not decoded again.

        Args:
            images: The images; those that lie together in a file best follow each other.
            seen: Is told how many more were looked at.
            training: What the cache is filled for.

        Returns:
            The images that cannot be used, and why.

        Raises:
            UserError: The cache cannot be written.
        """

        def reason(image: ImageFile) -> str | None:
            try:
                entry = self._entry(image, training)
                if entry is None:
                    decode_as_grey_or_rgb(image, self.draft_side)
                elif not entry.exists():
                    self._fill(image, entry, training)
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

    def load(self, source: ImageFile, *, training: bool) -> Image.Image | Tensor:
        """What `transform` takes: the square, or the image to crop at random; of a cache as (1 or 3, H, W) uint8.

        Raises:
            ImageError: It cannot be decoded, though `check` could: the file changed during the run. Names the
                file.
            UserError: The cache lacks it and cannot be written.
        """
        try:
            entry = self._entry(source, training)
            if entry is None:
                return self._make(source, training)
            array = read_entry(entry)
            if array is None:
                array = self._fill(source, entry, training)
        except ImageError as error:
            raise _changed(source, error) from error
        return torch.from_numpy(array).permute(2, 0, 1)

    def transform(self, *, training: bool) -> Callable[[Any], Tensor]:
        """From what `load` gives to (3, S, S) uint8; draws from torch's global CPU generator where images vary."""
        transform: Callable[[Any], Tensor] = square_transform()
        if self.varies(training=training):
            transform = (augmented_view_transform if self.augmented else random_crop_transform)(self.image_size)
        return transform

    def original(self, source: ImageFile) -> Image.Image:
        """The whole image, to be looked at.

        Raises:
            ImageError: As in `load`.
        """
        try:
            return decode(source)
        except ImageError as error:
            raise _changed(source, error) from error

    def varies(self, *, training: bool) -> bool:
        """Whether an image looks different each time: what is loaded is then the whole of it."""
        return training and (self.random_resized_crop or self.augmented)

    def _entry(self, source: ImageFile, training: bool) -> Path | None:
        """Where the cache keeps this image for this use."""
        if self.cache is None:
            return None
        kind = f"whole-{self.shorter_side}" if self.varies(training=training) else f"square-{self.image_size}"
        draft = "-draft" if self.draft_side is not None else ""
        return entry_of(self.cache / f"{kind}{draft}-v{VERSION}", source)

    def _make(self, source: ImageFile, training: bool) -> Image.Image:
        """What `load` gives of an image: the square, or the whole image to crop from, scaled down for a cache."""
        image, shown = decode_as_grey_or_rgb(source, self.draft_side)
        if not self.varies(training=training):
            return fit(image, self.image_size, shown)
        if self.cache is None or (scale := self.shorter_side / min(shown)) >= 1:
            return image
        width, height = (max(1, round(side * scale)) for side in shown)
        return image.resize((width, height), Image.Resampling.BICUBIC, box=(0, 0, *shown))

    def _fill(self, source: ImageFile, entry: Path, training: bool) -> NDArray[np.uint8]:
        image = self._make(source, training)
        array = np.array(image, dtype=np.uint8).reshape(image.height, image.width, -1)
        write_entry(entry, array)
        return array


def _changed(source: ImageFile, error: ImageError) -> ImageError:
    return ImageError(f"{source}: {error} (it could be read when the run began)")


def _container(source: ImageFile) -> Hashable:
    return source if isinstance(source, Path) else source.container
