"""What every vision and text encoder offers, so that stages never ask which one they hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm

from umd.files import UserError
from umd.masking import PatchMask

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VisionEncoder(nn.Module, ABC):
    """An image encoder that yields one summary token and a square grid of patch tokens.

    Args:
        width: size W of a token.
        patch_size: pixels p along a patch's side; for a network without patches, its total stride.
        grid: patches along an image's side; P = grid * grid.
        masking: "drop" encodes only the patches that are kept, "pixel" blanks masked patches in the image.
        mean: three channel means, on the 0..1 scale, that the encoder's weights expect.
        std: three channel standard deviations on the same scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        width: int,
        patch_size: int,
        grid: int,
        masking: Literal["drop", "pixel"],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        if grid < 1:
            raise UserError(f"image_size must be at least {patch_size}: one patch of this encoder")
        self.width = width
        self.patch_size = patch_size
        self.grid = grid
        self.masking = masking
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def patches(self) -> int:
        """Number P of patches of an unmasked image."""
        return self.grid * self.grid

    @property
    def position_table(self) -> str | None:
        """Name of the learned position table in this encoder's state dict, None where there is none."""
        return None

    def normalize(self, image: Tensor) -> Tensor:
        """Pixels as this encoder's weights expect them, cropped right and bottom to whole patches.

        Args:
            image: (B, 3, H, W) uint8 in 0..255, or float in 0..1.

        Returns:
            (B, 3, S, S) float with S = grid * patch_size.

        Raises:
            UserError: the image is smaller than S.
        """
        side = self.grid * self.patch_size
        if image.shape[-2] < side or image.shape[-1] < side:
            raise UserError(
                f"images of {image.shape[-2]} x {image.shape[-1]} pixels do not fill the encoder's "
                f"{side} x {side}: give the data module and the encoder the same image_size"
            )
        image = image[..., :side, :side]
        if image.dtype == torch.uint8:
            image = image.to(self.mean.dtype) / 255
        return (image - self.mean) / self.std

    def denormalize(self, pixels: Tensor) -> Tensor:
        """Inverse of `normalize`: (B, 3, S, S) back to 0..1, clamped."""
        return (pixels * self.std + self.mean).clamp(0, 1)

    @abstractmethod
    def forward(self, pixels: Tensor, mask: PatchMask | None = None) -> Tensor:
        """Encode normalised pixels.

        Args:
            pixels: (B, 3, S, S) from `normalize`.
            mask: patches to hide; None encodes all.

        Returns:
            (B, 1 + P', W): summary token first; P' = P, or the number of kept patches where `masking` is "drop".
        """


class TextEncoder(nn.Module, ABC):
    """A token encoder.

    Args:
        width: size W of a token's feature.
        vocab_size: number of token ids that it embeds.
        max_length: longest sequence that it takes, in tokens.
    """

    def __init__(self, *, width: int, vocab_size: int, max_length: int) -> None:
        super().__init__()
        self.width = width
        self.vocab_size = vocab_size
        self.max_length = max_length

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode (B, L) int64 ids under a (B, L) bool mask (True = real token) into (B, L, W)."""

    def check(self, input_ids: Tensor) -> None:
        """Raise UserError where (B, L) ids are longer than this encoder takes."""
        if input_ids.shape[1] > self.max_length:
            raise UserError(
                f"a text of {input_ids.shape[1]} tokens is longer than the text encoder's {self.max_length}: "
                "lower data.text_length"
            )


def normalizes_over_batches(encoder: nn.Module) -> bool:
    """Whether what an encoder makes of a sample depends on the others, as BatchNorm in training does."""
    return any(isinstance(part, _BatchNorm) and part.training for part in encoder.modules())


class PairEncoder(nn.Module, ABC):
    """An encoder of image-text pairs: one vision encoder, one text encoder, and whatever joins them.

    Args:
        vision: the vision encoder.
        text: the text encoder.
    """

    def __init__(self, vision: VisionEncoder, text: TextEncoder) -> None:
        super().__init__()
        self.vision = vision
        self.text = text

    def image_tokens(self, pixels: Tensor, mask: PatchMask | None = None) -> Tensor:
        """The vision encoder's tokens of normalised pixels; see `VisionEncoder.forward`."""
        tokens: Tensor = self.vision(pixels, mask)
        return tokens

    def encode_images(self, pixels: Tensor, image_index: Tensor | None) -> Tensor:
        """The vision encoder's tokens for each of B pairs, each of their U images encoded once.

        Args:
            pixels: (U, 3, S, S) from `vision.normalize`.
            image_index: (B,) int64, which of the images each pair has; None: each its own, U = B.

        Returns:
            (B, 1 + P, W).
        """
        if image_index is None:
            return self.image_tokens(pixels)
        if normalizes_over_batches(self.vision):  # its statistics count an image as often as it is there
            return self.image_tokens(pixels.index_select(0, image_index))
        return self.image_tokens(pixels).index_select(0, image_index)

    @abstractmethod
    def modality_parameters(self) -> Mapping[str, list[Parameter]]:
        """The parameters of "vision" and of "language", none in both; what serves both is in neither."""
