"""D_I: from fused image tokens back to the pixels of every patch (UMD section 3.1.1, MAE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder

from umd.masking import PatchMask


def sincos_positions(width: int, grid: int) -> Tensor:
    """Fixed 2-D sine-cosine positions of a square grid (MAE).

    Args:
        width: size of an embedding, a multiple of 4; one half encodes the column, the other the row.
        grid: patches along a side.

    Returns:
        (1 + grid * grid, width) float32, zeros for the summary token.
    """
    if width % 4:
        raise ValueError(f"decoder_width is {width}; it must be a multiple of 4")
    frequency = 10000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    place = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    axis = torch.cat([place.sin(), place.cos()], dim=1)
    columns = axis.repeat(grid, 1)
    rows = axis.repeat_interleave(grid, dim=0)
    patches = torch.cat([columns, rows], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), patches]).float()


def _blocks(width: int, layers: int, heads: int) -> nn.Module:
    config: Any = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads
    )
    config._attn_implementation = "sdpa"
    return CLIPEncoder(config)


class ImageDecoder(nn.Module):
    """A small transformer over the full patch grid, mask tokens put back in place.

    Args:
        input_width: size D of the fused tokens.
        width: the decoder's own width.
        layers: its blocks.
        heads: its attention heads.
        patch_size: pixels p along a patch's side.
        grid: patches along an image's side.
    """

    positions: Tensor

    def __init__(self, *, input_width: int, width: int, layers: int, heads: int, patch_size: int, grid: int) -> None:
        super().__init__()
        self.embed = nn.Linear(input_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        # Not in the checkpoint: another image size just computes them anew.
        self.register_buffer("positions", sincos_positions(width, grid), persistent=False)
        self.blocks = _blocks(width, layers, heads)
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, 3 * patch_size**2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, image: Tensor, mask: PatchMask) -> Tensor:
        """Predict every patch from the fused tokens.

        Args:
            image: Z_I, (B, 1 + K, D) where hidden patches were dropped, or (B, 1 + P, D).
            mask: what was hidden.

        Returns:
            (B, P, 3 * p * p), pixels of a patch ordered row, column, channel.
        """
        predicted: Tensor = self.predict(self.trunk(image, mask)[:, 1:])
        return predicted

    def trunk(self, image: Tensor, mask: PatchMask) -> Tensor:
        """The decoder's last features at every place, (B, 1 + P, width); arguments as in `forward`."""
        tokens = self.embed(image)
        summary, patches = tokens[:, :1], tokens[:, 1:]
        full = self.mask_token.to(tokens.dtype).expand(*mask.masked.shape, -1)
        if patches.shape[1] == mask.masked.shape[1]:
            full = torch.where(mask.masked[:, :, None], full, patches)
        else:
            full = full.scatter(1, mask.keep[:, :, None].expand_as(patches), patches)
        places = torch.cat([summary, full], dim=1) + self.positions
        decoded = self.blocks(inputs_embeds=places).last_hidden_state
        normed: Tensor = self.norm(decoded)
        return normed
