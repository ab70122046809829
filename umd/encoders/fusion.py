"""The fusion F: two stacks of co-attention layers, one per modality (UMD section 3.1.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional
from torch.utils.checkpoint import checkpoint

from umd.encoders.attention import Attention
from umd.encoders.dropout import Dropout
from umd.files import UserError

Pick = Callable[[Tensor], Tensor]
"""From (B, N, D) tokens to those of them that are read behind, (B, Q, D)."""


def recomputed(module: nn.Module, wanted: bool, *inputs: object) -> Tensor:
    """A module's output; where it is wanted, its activations are not kept but computed again in the backward."""
    if wanted and torch.is_grad_enabled():
        # The generators' state is put back for the second time: the same dropout is drawn.
        output: Tensor = checkpoint(module, *inputs, use_reentrant=False)
    else:
        output = module(*inputs)
    return output


def first_token(tokens: Tensor) -> Tensor:
    """The first of (B, N, D) tokens, (B, 1, D)."""
    return tokens[:, :1]


class CoAttentionLayer(nn.Module):
    """Self-attention over the own modality, cross-attention to the other one, feed-forward; post-norm each.

    Args:
        width: size D of a token; the feed-forward is 4 D wide.
        heads: attention heads.
        dropout: of attention and feed-forward.
        layer_norm_eps: epsilon of the LayerNorms.
    """

    def __init__(self, width: int, heads: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout, layer_norm_eps)
        self.cross_attention = Attention(width, heads, dropout, layer_norm_eps)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        own: Tensor,
        own_mask: Tensor | None,
        other: Tensor,
        other_mask: Tensor | None,
        causal: bool = False,
        pick: Pick | None = None,
    ) -> Tensor:
        """(B, N, D) tokens of the own modality, having read the (B, M, D) tokens of the other one.

        `causal` lets a token read no later one of its own modality (then without `own_mask`). With `pick` only the
        picked ones are computed, (B, Q, D); they still read all of `own`. It goes without `causal`.
        """
        tokens = self.self_attention(own if pick is None else pick(own), own, own_mask, causal)
        return self.feed_forward(self.cross_attention(tokens, other, other_mask))

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """The last part of the layer, which looks at each token by itself; (..., D)."""
        hidden = self.contract(functional.gelu(self.expand(tokens)))
        normed: Tensor = self.norm(self.dropout(hidden) + tokens)
        return normed


class Fusion(nn.Module):
    """Projections to a common width, a learned modality embedding, and the two co-attention stacks.

    Both stacks of one layer read the same pair of inputs: the text stack's layer never sees what the image
    stack's layer of the same depth puts out.

    Args:
        text_width: size of the text encoder's tokens.
        image_width: size of the vision encoder's tokens.
        width: size D of the fused tokens.
        layers: number of layers N_m of each stack.
        heads: attention heads.
        dropout: of attention and feed-forward.
        layer_norm_eps: epsilon of the LayerNorms.
        checkpoint_layers: compute the activations of each layer a second time in the backward, and keep none.
    """

    def __init__(
        self,
        *,
        text_width: int,
        image_width: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        layer_norm_eps: float,
        checkpoint_layers: bool = False,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise UserError(f"fusion_layers is {layers}; it must be at least 1")
        self.checkpoint_layers = checkpoint_layers
        self.text_projection = nn.Linear(text_width, width)
        self.image_projection = nn.Linear(image_width, width)
        self.modality_embedding = nn.Embedding(2, width)
        self.text_layers = nn.ModuleList(CoAttentionLayer(width, heads, dropout, layer_norm_eps) for _ in range(layers))
        self.image_layers = nn.ModuleList(
            CoAttentionLayer(width, heads, dropout, layer_norm_eps) for _ in range(layers)
        )
        initialize(self, width)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        pick_text: Pick | None = None,
        pick_image: Pick | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fuse (B, L, text_width) under a (B, L) bool mask with (B, N, image_width): Z_T (B, L, D), Z_I (B, N, D).

        With picks the last layers compute only those tokens of Z_T and Z_I that are picked.
        """
        kinds = self.modality_embedding.weight
        text = self.text_projection(text) + kinds[0]
        image = self.image_projection(image) + kinds[1]
        picks: list[tuple[Pick | None, Pick | None]] = [(None, None)] * (len(self.text_layers) - 1)
        picks.append((pick_text, pick_image))
        again = self.checkpoint_layers
        for of_text, of_image, (some_text, some_image) in zip(self.text_layers, self.image_layers, picks, strict=True):
            text, image = (
                recomputed(of_text, again, text, text_mask, image, None, False, some_text),
                recomputed(of_image, again, image, None, text, text_mask, False, some_image),
            )
        return text, image

    def text_parameters(self) -> Iterator[Parameter]:
        """Projection and stack of the text."""
        yield from self.text_projection.parameters()
        yield from self.text_layers.parameters()

    def image_parameters(self) -> Iterator[Parameter]:
        """Projection and stack of the image."""
        yield from self.image_projection.parameters()
        yield from self.image_layers.parameters()


BERT_WIDTH, BERT_STD = 768, 0.02


def initial_std(width: int) -> float:
    """Standard deviation of new weights: BERT's 0.02 at its width of 768, more in narrower networks.

    With 0.02 a network of width 64 starts with flat attention and takes several times as long to learn.
    """
    return BERT_STD * math.sqrt(BERT_WIDTH / width)


def initialize(module: nn.Module, width: int) -> None:
    """Draw every Linear and Embedding below from N(0, initial_std(width)^2), with zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=initial_std(width))
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
