"""What stands in for an encoder and the fusion where a model has one modality only (baselines of UMD's Table 3).

The absent encoder yields one token of no width. It has no parameters and adds nothing to z, so that all that
is made for two modalities works with one.
"""

from __future__ import annotations

import sys

from torch import Tensor, nn

from umd.encoders.fusion import Pick, initialize
from umd.encoders.interfaces import TextEncoder, VisionEncoder
from umd.masking import PatchMask


class NoVision(VisionEncoder):
    """In the place of a vision encoder: no image is looked at."""

    def __init__(self) -> None:
        nothing = (0.0, 0.0, 0.0)
        super().__init__(width=0, patch_size=1, grid=1, masking="pixel", mean=nothing, std=nothing)

    def normalize(self, image: Tensor) -> Tensor:
        """The images without their pixels, (B, 3, 0, 0) float."""
        return image[..., :0, :0].to(self.mean.dtype)

    def forward(self, pixels: Tensor, mask: PatchMask | None = None) -> Tensor:
        """One token of no width for each image, (B, 1, 0)."""
        return pixels.new_zeros(pixels.shape[0], 1, 0)


class NoText(TextEncoder):
    """In the place of a text encoder: no text is read, whatever its vocabulary and length."""

    def __init__(self) -> None:
        super().__init__(width=0, vocab_size=sys.maxsize, max_length=sys.maxsize)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One token of no width for each text, (B, 1, 0)."""
        return input_ids.new_zeros(input_ids.shape[0], 1, 0).float()


class OneModality(nn.Module):
    """In the place of the fusion: the projection of the one modality that is there.

    Args:
        text_width: size of the text encoder's tokens, 0 where there is none.
        image_width: size of the vision encoder's tokens, 0 where there is none.
        width: size D of the projected tokens.
    """

    def __init__(self, *, text_width: int, image_width: int, width: int) -> None:
        super().__init__()
        self.text_projection = nn.Linear(text_width, width) if text_width else nn.Identity()
        self.image_projection = nn.Linear(image_width, width) if image_width else nn.Identity()
        initialize(self, width)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        pick_text: Pick | None = None,
        pick_image: Pick | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Arguments and results as those of `Fusion`, the absent modality's token as it is."""
        text, image = text if pick_text is None else pick_text(text), image if pick_image is None else pick_image(image)
        return self.text_projection(text), self.image_projection(image)
