"""The fusion of many pairs of a few images and texts: what concerns one of the two is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from umd.encoders.attention import KeysValues
from umd.encoders.fusion import CoAttentionLayer, Fusion, Pick, first_token
from umd.encoders.multimodal import Features, MultimodalEncoder, Pooled


@dataclass(frozen=True, slots=True)
class Alone:
    """B texts or images as far as the fusion's first layer comes without the other modality.

    Attributes:
        tokens: (B, N, D), having attended to each other.
        query: (B, H, N, D / H), what they look for in the other modality.
        seen: what the other modality sees of them: the keys and values of the layer's input.
        mask: (B, N) bool, True at real tokens; None: all are.
    """

    tokens: Tensor
    query: Tensor
    seen: KeysValues
    mask: Tensor | None

    def of(self, rows: Tensor, longest: int) -> Alone:
        """Those at `rows`, (R,) int64, of which none has more than so many tokens."""
        key, value = (part[rows, :, :longest] for part in (self.seen.key, self.seen.value))
        mask = None if self.mask is None else self.mask[rows, :longest]
        return Alone(
            self.tokens[rows, :longest],
            self.query[rows, :, :longest],
            KeysValues(key, value),
            None if mask is None or mask.all() else mask,
        )

    def expand(self, samples: int) -> Alone:
        """The one that this is, B = 1, for so many; nothing is copied."""
        return Alone(
            self.tokens.expand(samples, -1, -1),
            self.query.expand(samples, -1, -1, -1),
            self.seen.expand(samples),
            self.mask,
        )


class PairFusion:
    """What `MultimodalEncoder.pool` makes of fused pairs, in evaluation, at less cost.

    The first layer's projections and self-attentions, and half of its cross-attentions, are those of an image or of a
    text, whatever the other one is. The last layer computes only the tokens that are pooled.

    Args:
        encoder: of two modalities, in evaluation: nothing is dropped here.
    """

    def __init__(self, encoder: MultimodalEncoder) -> None:
        self.encoder = encoder
        self.fusion = cast(Fusion, encoder.fusion)
        stacks = zip(self.fusion.text_layers, self.fusion.image_layers, strict=True)
        self.first, *self.behind = cast(list[tuple[CoAttentionLayer, CoAttentionLayer]], list(stacks))

    def text(self, text: Tensor, mask: Tensor) -> Alone:
        """Texts alone, from (B, L, W_T) of their encoder and a (B, L) bool mask."""
        own, other = self.first
        tokens = self.fusion.text_projection(text) + self.fusion.modality_embedding.weight[0]
        return _alone(own, other, tokens, mask)

    def image(self, image: Tensor) -> Alone:
        """Images alone, from (B, 1 + P, W_I) of their encoder."""
        other, own = self.first
        tokens = self.fusion.image_projection(image) + self.fusion.modality_embedding.weight[1]
        return _alone(own, other, tokens, None)

    def pooled(self, text: Alone, image: Alone) -> Pooled:
        """z_T and z_I of B pairs."""
        text_layer, image_layer = self.first
        mask = text.mask
        texts, images = _read(text_layer, text, image), _read(image_layer, image, text)
        for depth, (text_layer, image_layer) in enumerate(self.behind, start=1):
            last = depth == len(self.behind) and self.encoder.config.pooling == "first"
            pick = first_token if last else None
            texts, images = (
                _fused(text_layer, texts, mask, images, None, pick),
                _fused(image_layer, images, None, texts, mask, pick),
            )
        real = torch.ones(texts.shape[:2], dtype=torch.bool, device=texts.device) if mask is None else mask
        return self.encoder.pool(Features(texts, images, real))


def _alone(own: CoAttentionLayer, other: CoAttentionLayer, tokens: Tensor, mask: Tensor | None) -> Alone:
    attended = own.self_attention(tokens, tokens, mask)
    query, seen = own.cross_attention.queries(attended), other.cross_attention.keys_values(tokens)
    return Alone(attended, query, seen, mask)


def _read(layer: CoAttentionLayer, own: Alone, other: Alone) -> Tensor:
    """The first layer's tokens, (B, N, D)."""
    readable = None if other.mask is None else other.mask[:, None, None, :]
    return layer.feed_forward(layer.cross_attention.read(own.tokens, own.query, other.seen, readable))


def _fused(
    layer: CoAttentionLayer,
    own: Tensor,
    own_mask: Tensor | None,
    other: Tensor,
    other_mask: Tensor | None,
    pick: Pick | None,
) -> Tensor:
    """What the layer makes of (B, N, D) tokens, or of those that are picked, by the cheapest way."""
    tokens = layer.self_attention.read_cheaply(own if pick is None else pick(own), own, own_mask)
    return layer.feed_forward(layer.cross_attention.read_cheaply(tokens, other, other_mask))
