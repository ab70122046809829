"""From a decoded image to the tensor of a batch. No flips: left and right are answers."""

from __future__ import annotations

from PIL import Image
from torchvision.transforms import v2

CROP_SCALE = (0.9, 1.0)

MOST_RATIO = 8
"""Longer images lose their ends before they are resized: a strip of 20,000 x 1 pixels would take gigabytes."""


def without_ends(image: Image.Image) -> Image.Image:
    """The middle of an image whose longer side has more than `MOST_RATIO` times the pixels of the shorter one."""
    width, height = (min(side, MOST_RATIO * min(image.size)) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def evaluation_transform(image_size: int) -> v2.Transform:
    """Shorter side to `image_size` pixels (bicubic), centre crop: PIL image to (3, S, S) uint8."""
    return v2.Compose(
        [
            without_ends,
            v2.Resize(image_size, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )


def training_transform(image_size: int, random_resized_crop: bool) -> v2.Transform:
    """A random crop of 90 to 100 % of the area if asked for (UMD's recipe), else as in evaluation."""
    if not random_resized_crop:
        return evaluation_transform(image_size)
    crop = v2.RandomResizedCrop(image_size, scale=CROP_SCALE, interpolation=v2.InterpolationMode.BICUBIC)
    return v2.Compose([crop, v2.PILToTensor()])
