"""From a decoded image to the tensor of a batch. No flips: left and right are answers."""

from __future__ import annotations

from torch import Tensor
from torchvision.transforms import v2

CROP_SCALE = (0.9, 1.0)

TURN, CLOSE_UP, STRETCH, LIGHT = 10.0, (0.7, 1.0), (0.85, 1.18), 0.2
"""Of an augmented view: most degrees it is turned by, share of the area, ratio of its sides, change of brightness and
of contrast."""


def three_channels(image: Tensor) -> Tensor:
    """(1 or 3, H, W) to (3, H, W); grey is repeated, in no memory of its own."""
    return image.expand(3, -1, -1)


def square_transform() -> v2.Transform:
    """Of a square, PIL image ("L" or "RGB") or (1 or 3, S, S) uint8, to (3, S, S)."""
    return v2.Compose([v2.PILToTensor(), three_channels])


def random_crop_transform(image_size: int) -> v2.Transform:
    """A random crop of 90 to 100 % of the area (UMD's recipe), to (3, S, S) uint8.

    Of a PIL image ("L" or "RGB"), or of (1 or 3, H, W) uint8: torch's pixels are Pillow's within two grey levels.
    """
    crop = v2.RandomResizedCrop(image_size, scale=CROP_SCALE, interpolation=v2.InterpolationMode.BICUBIC)
    return v2.Compose([crop, v2.PILToTensor(), three_channels])


def augmented_view_transform(image_size: int) -> v2.Transform:
    """What a radiograph may look like besides: a little turned, closer, stretched, brighter, of more contrast.

    Of what `random_crop_transform` takes, to (3, S, S) uint8.
    """
    bicubic, bilinear = v2.InterpolationMode.BICUBIC, v2.InterpolationMode.BILINEAR
    crop = v2.RandomResizedCrop(image_size, scale=CLOSE_UP, ratio=STRETCH, interpolation=bicubic)
    turn, light = v2.RandomRotation(TURN, interpolation=bilinear), v2.ColorJitter(LIGHT, LIGHT)
    return v2.Compose([turn, crop, light, v2.PILToTensor(), three_channels])
