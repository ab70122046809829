"""ViT trained on ImageNet-21k (Dosovitskiy et al., 2021), on `transformers`."""

from __future__ import annotations

from torch import Tensor
from transformers import ViTConfig, ViTModel

from umd.encoders.interfaces import VisionEncoder
from umd.encoders.pretrained import load_transformers_weights
from umd.encoders.registry import VISION
from umd.masking import PatchMask


class ViT(VisionEncoder):
    """A vision transformer whose masked patches are dropped before its first block.

    Args:
        image_size: pixels along the side of the input; the remainder over whole patches is cropped.
        width: size W of a token.
        depth: number of blocks.
        heads: attention heads of a block.
        patch_size: pixels along a patch's side.
    """

    def __init__(self, image_size: int, *, width: int, depth: int, heads: int, patch_size: int) -> None:
        grid = image_size // patch_size
        half = (0.5, 0.5, 0.5)
        super().__init__(width=width, patch_size=patch_size, grid=grid, masking="drop", mean=half, std=half)
        config = ViTConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            image_size=grid * patch_size,
            patch_size=patch_size,
        )
        self.model = ViTModel(config, add_pooling_layer=False)

    @property
    def position_table(self) -> str:
        """Name of the learned position table in the state dict."""
        return "model.embeddings.position_embeddings"

    def forward(self, pixels: Tensor, mask: PatchMask | None = None) -> Tensor:
        """See `VisionEncoder.forward`."""
        tokens: Tensor = self.model.embeddings(pixels)
        if mask is not None:
            tokens = mask.drop(tokens)
        for layer in self.model.layers:
            tokens = layer(tokens, None)
        normed: Tensor = self.model.layernorm(tokens)
        return normed


@VISION.register("vit_b16_in21k")
def vit_b16_in21k(image_size: int, weights: str | None = None, blocks: int | None = None) -> ViT:
    """ViT-B/16 with ImageNet-21k weights (GGP's vision encoder); `blocks` keeps the first ones only."""
    encoder = ViT(image_size, width=768, depth=blocks or 12, heads=12, patch_size=16)
    if weights is not None:
        load_transformers_weights(
            encoder.model,
            "google/vit-base-patch16-224-in21k" if weights == "default" else weights,
            grid=encoder.grid,
            position_table=encoder.position_table.removeprefix("model."),
        )
    return encoder
