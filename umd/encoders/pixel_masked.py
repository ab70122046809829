"""Vision encoders that are not made of independent patches: a mask is painted into their input."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from umd.encoders.interfaces import VisionEncoder
from umd.files import UserError
from umd.masking import PatchMask


class PixelMaskedVision(VisionEncoder):
    """An encoder with a square feature map; one of its places, `stride` pixels wide, is a patch.

    Hidden patches are blanked in the normalised image (0: the mean colour). The summary token is the mean of all
    patch tokens. BatchNorm, where there is any, learns its statistics from masked and whole images alike; with
    few images a device, train with `trainer.sync_batchnorm: true`.

    Args:
        image_size: pixels along the side of the input; the remainder over whole patches is cropped.
        width: channels W of the feature map.
        stride: pixels along the side of the image that one place of the feature map stands for.
        mean: channel means of the normalisation.
        std: channel standard deviations of the normalisation.

    Raises:
        UserError: the image is smaller than 2 x 2 patches: nothing would be left to rebuild a hidden one from.
    """

    def __init__(
        self,
        image_size: int,
        *,
        width: int,
        stride: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        grid = image_size // stride
        if grid < 2:
            raise UserError(
                f"image_size is {image_size}; a vision encoder with a total stride of {stride} pixels needs at "
                f"least {2 * stride}"
            )
        super().__init__(width=width, patch_size=stride, grid=grid, masking="pixel", mean=mean, std=std)

    @abstractmethod
    def feature_map(self, pixels: Tensor) -> Tensor:
        """Encode normalised (B, 3, S, S) pixels into (B, W, grid, grid)."""

    def forward(self, pixels: Tensor, mask: PatchMask | None = None) -> Tensor:
        """See `VisionEncoder.forward`."""
        if mask is not None:
            hidden = mask.masked.view(-1, 1, self.grid, self.grid)
            for side in (2, 3):
                hidden = hidden.repeat_interleave(self.patch_size, side)
            pixels = pixels.masked_fill(hidden, 0.0)
        patches = self.feature_map(pixels).flatten(2).transpose(1, 2)
        return torch.cat([patches.mean(1, keepdim=True), patches], dim=1)
