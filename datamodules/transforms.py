"""From a decoded image to the tensor of a batch. No flips: left and right are answers."""

from __future__ import annotations

from functools import partial

from torchvision.transforms import v2

from datamodules.fitting import fit

CROP_SCALE = (0.9, 1.0)


def evaluation_transform(image_size: int) -> v2.Transform:
    """Shorter side to `image_size` pixels (bicubic), centre crop: PIL image to (3, S, S) uint8."""
    return v2.Compose([partial(fit, image_size=image_size), v2.PILToTensor()])


def training_transform(image_size: int, random_resized_crop: bool) -> v2.Transform:
    """A random crop of 90 to 100 % of the area if asked for (UMD's recipe), else as in evaluation."""
    if not random_resized_crop:
        return evaluation_transform(image_size)
    crop = v2.RandomResizedCrop(image_size, scale=CROP_SCALE, interpolation=v2.InterpolationMode.BICUBIC)
    return v2.Compose([crop, v2.PILToTensor()])
