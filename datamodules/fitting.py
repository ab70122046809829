"""From an image of any size to the square that an encoder reads, by Pillow alone."""

from __future__ import annotations

from PIL import Image

MOST_RATIO = 8
"""Longer images lose their ends before they are resized: a strip of 20,000 x 1 pixels would take gigabytes."""


def without_ends(image: Image.Image) -> Image.Image:
    """The middle of an image whose longer side has more than `MOST_RATIO` times the pixels of the shorter one."""
    width, height = (min(side, MOST_RATIO * min(image.size)) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def fit(image: Image.Image, image_size: int) -> Image.Image:
    """Shorter side to `image_size` pixels (bicubic), centre crop.

    The same pixels as torchvision's v2.Resize and v2.CenterCrop give, also where torch is not at hand.
    """
    image = without_ends(image)
    shorter, longer = sorted(image.size)
    rest = int(image_size * longer / shorter)
    size = (image_size, rest) if image.width <= image.height else (rest, image_size)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - image_size) / 2) for side in image.size)
    return image.crop((left, top, left + image_size, top + image_size))
