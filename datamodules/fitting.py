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


def fit(image: Image.Image, image_size: int, shown: tuple[float, float] | None = None) -> Image.Image:
    """Shorter side to `image_size` pixels (bicubic), centre crop.

    The same pixels as torchvision's v2.Resize and v2.CenterCrop give, also where torch is not at hand.

    Args:
        image: Of any size.
        image_size: Side of the square.
        shown: Width and height that count, in the image's pixels, where these end within its last ones.
    """
    middle = without_ends(image)
    if shown is None or middle is not image:
        shown = middle.size
    shorter, longer = sorted(shown)
    rest = int(image_size * longer / shorter)
    size = (image_size, rest) if shown[0] <= shown[1] else (rest, image_size)
    image = middle if shown == size else middle.resize(size, Image.Resampling.BICUBIC, box=(0, 0, *shown))
    left, top = (round((side - image_size) / 2) for side in image.size)
    return image.crop((left, top, left + image_size, top + image_size))
