"""Attention of one modality's tokens to its own or to the other's, by the way that costs least."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from umd.encoders.dropout import Dropout
from umd.files import UserError


@dataclass(frozen=True, slots=True)
class KeysValues:
    """What attention reads of M tokens.

    Attributes:
        key: (B, H, M, D / H), of H heads.
        value: (B, H, M, D / H).
    """

    key: Tensor
    value: Tensor

    def expand(self, samples: int) -> KeysValues:
        """Those of one sample, B = 1, for so many; nothing is copied."""
        return KeysValues(self.key.expand(samples, -1, -1, -1), self.value.expand(samples, -1, -1, -1))

    def followed_by(self, other: KeysValues) -> KeysValues:
        """These tokens, then the other ones."""
        return KeysValues(torch.cat([self.key, other.key], dim=2), torch.cat([self.value, other.value], dim=2))


class Attention(nn.Module):
    """Multi-head attention with its output projection, residual and LayerNorm (post-norm).

    Args:
        width: size D of a token.
        heads: attention heads; D must be a multiple of it.
        dropout: of the attention probabilities and of the output.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, width: int, heads: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, context: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """Attend from (B, N, D) tokens to (B, M, D) context under a (B, M) bool mask (True = may be read).

        `causal` lets token n read the context up to n; it goes without a mask.
        """
        if self.training and not (causal or torch.compiler.is_compiling()):
            return self.read_cheaply(tokens, context, mask)
        return self._read_plainly(tokens, context, mask, causal)

    def read_cheaply(self, tokens: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """As `forward`, by that of the ways to compute it which costs least."""
        number, seen = tokens.shape[1], context.shape[1]
        half = torch.is_autocast_enabled(tokens.device.type)  # there a way around rounds otherwise
        if number == 1 or (not half and self._few(number, seen)):
            return self.read_with_few(tokens, context, mask)
        if not half and self._few(seen, number):
            return self.read_few(tokens, context, mask)
        return self._read_plainly(tokens, context, mask)

    def _few(self, few: int, many: int) -> bool:
        """Whether so few tokens go through one more layer for each head at less cost than so many through one."""
        width = self.query.in_features
        return few * (self.heads * many + width) < 0.8 * many * width

    def _read_plainly(self, tokens: Tensor, context: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        readable = None if mask is None else mask[:, None, None, :]
        return self.read(tokens, self.queries(tokens), self.keys_values(context), readable, causal)

    def queries(self, tokens: Tensor) -> Tensor:
        """What (B, N, D) tokens look for: (B, H, N, D / H)."""
        return self._by_head(self.query(tokens))

    def keys_values(self, context: Tensor) -> KeysValues:
        """What can be read of (B, M, D) context, whoever reads it."""
        return KeysValues(self._by_head(self.key(context)), self._by_head(self.value(context)))

    def read(
        self, tokens: Tensor, query: Tensor, context: KeysValues, readable: Tensor | None, causal: bool = False
    ) -> Tensor:
        """As `forward`, from the tokens' `queries` and the context's `keys_values`.

        `readable` is bool and broadcasts to (B, H, N, M): token n may read context m.
        """
        attended = self._attend(query, context.key, context.value, readable, causal)
        return self._merge(attended.transpose(1, 2).flatten(2), tokens)

    def read_with_few(self, tokens: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """As `forward` for few tokens, (B, N, D), at a fraction of its cost.

        Keys and values of the context are never made. Instead of each of its tokens c, the few queries q go through
        the keys' weights W, as q (W c) = (q W) c, and their means through the values'. The keys' bias changes all
        scores of a query alike, and so nothing: its gradient is zero.
        """
        key, value = (torch.unflatten(layer.weight, 0, (self.heads, -1)) for layer in (self.key, self.value))
        query = torch.einsum("bhnd,hdw->bhnw", self.queries(tokens), key)
        readable, context = None if mask is None else mask[:, None, None, :], context[:, None]
        # Heads and tokens in the place of tokens.
        seen = self._attend(query.flatten(1, 2)[:, None], context, context, readable, scale=key.shape[1] ** -0.5)
        means = torch.einsum("bhnw,hdw->bnhd", torch.unflatten(seen[:, 0], 1, (self.heads, -1)), value)
        return self._merge(means.flatten(2) + self.value.bias + 0 * self.key.bias, tokens)

    def read_few(self, tokens: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """As `forward` for a context of few tokens, (B, M, D), at a fraction of its cost, in float32.

        Here the many tokens never go through the queries' and the output's weights: the few keys and values do.
        """
        seen, heads = self.keys_values(context), (self.heads, -1)
        weight, bias = torch.unflatten(self.query.weight, 0, heads), torch.unflatten(self.query.bias, 0, heads)
        key = torch.einsum("bhmd,hdw->bhmw", seen.key, weight)
        value = torch.einsum("bhmd,whd->bhmw", seen.value, torch.unflatten(self.output.weight, 1, heads))
        shift = torch.einsum("bhmd,hd->bhm", seen.key, bias)
        if mask is not None:
            shift = shift.masked_fill(~mask[:, None], torch.finfo(shift.dtype).min)
        scores = tokens @ key.flatten(1, 2).transpose(1, 2) + shift.flatten(1)[:, None]
        weights = (torch.unflatten(scores, 2, heads) * seen.key.shape[-1] ** -0.5).softmax(-1)
        attended = self.dropout(weights).flatten(2) @ value.flatten(1, 2) + self.output.bias
        return self._added(attended, tokens)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        readable: Tensor | None,
        causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """Scaled dot-product attention, (..., N, D); in training with dropout."""
        drops = self.training and self.dropout.p > 0
        if not drops or query.device.type != "cpu" or torch.compiler.is_compiling():
            return functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=readable,
                dropout_p=self.dropout.p if drops else 0.0,
                is_causal=causal,
                scale=scale,
            )
        # On a CPU torch has no kernel for dropout either, and takes longer over the same steps.
        kind = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            query = query.to(kind) * (query.shape[-1] ** -0.5 if scale is None else scale)
            scores = query @ key.to(kind).transpose(-2, -1)
            if causal:
                readable = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            if readable is not None:
                scores = scores.masked_fill(~readable, torch.finfo(kind).min)
            attended: Tensor = self.dropout(scores.softmax(-1)) @ value.to(kind)
        return attended.to(query.dtype)

    def _by_head(self, tokens: Tensor) -> Tensor:
        return torch.unflatten(tokens, -1, (self.heads, -1)).transpose(1, 2)

    def _merge(self, attended: Tensor, tokens: Tensor) -> Tensor:
        return self._added(self.output(attended), tokens)

    def _added(self, output: Tensor, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.dropout(output) + tokens)
        return normed
