"""From a decoded image to the tensor of a batch. No flips: left and right are answers."""

from __future__ import annotations

from functools import partial

from torchvision.transforms import v2

from datamodules.fitting import fit

CROP_SCALE = (0.9, 1.0)

TURN, CLOSE_UP, STRETCH, LIGHT = 10.0, (0.7, 1.0), (0.85, 1.18), 0.2
"""Of an augmented view: most degrees it is turned by, share of the area, ratio of its sides, change of brightness and
of contrast."""


def evaluation_transform(image_size: int) -> v2.Transform:
    """Shorter side to `image_size` pixels (bicubic), centre crop: PIL image to (3, S, S) uint8."""
    return v2.Compose([partial(fit, image_size=image_size), v2.PILToTensor()])


def training_transform(image_size: int, random_resized_crop: bool, augmented_view: bool = False) -> v2.Transform:
    """From a PIL image to (3, S, S) uint8.

    Args:
        image_size: S.
        random_resized_crop: A random crop of 90 to 100 % of the area (UMD's recipe), else as in evaluation.
        augmented_view: In the place of both, what a radiograph may look like besides: a little turned, closer,
            stretched, brighter, of more contrast.
    """
    bicubic, bilinear = v2.InterpolationMode.BICUBIC, v2.InterpolationMode.BILINEAR
    if augmented_view:
        crop = v2.RandomResizedCrop(image_size, scale=CLOSE_UP, ratio=STRETCH, interpolation=bicubic)
        turn, light = v2.RandomRotation(TURN, interpolation=bilinear), v2.ColorJitter(LIGHT, LIGHT)
        return v2.Compose([turn, crop, light, v2.PILToTensor()])
    if not random_resized_crop:
        return evaluation_transform(image_size)
    crop = v2.RandomResizedCrop(image_size, scale=CROP_SCALE, interpolation=bicubic)
    return v2.Compose([crop, v2.PILToTensor()])
