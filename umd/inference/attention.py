"""Where a transformer looks: its attention, rolled out over encoders, fusion and answer decoder.

Attention rollout (Abnar and Zuidema, 2020): a layer's tokens are half what they were and half what they attend to, so
the product over layers tells, of each token at the end, which share of it comes from which token at the start. Here a
row of that product is followed through both modalities: cross-attention mixes in the other one's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from umd.encoders.attention import Attention
from umd.encoders.fusion import Fusion
from umd.encoders.ggp import GGPEncoder
from umd.encoders.interfaces import PairEncoder
from umd.encoders.multimodal import MultimodalEncoder
from umd.encoders.pixel_masked import PixelMaskedVision
from umd.modules.base import Stage

VISION, TEXT = "encoder.vision", "encoder.text"


def attention_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What torch's scaled_dot_product_attention of these arguments weighs `value` with, the mean over heads.

    Args:
        query: (B, H, N, D).
        key: (B, H, M, D).
        value: not looked at.
        attn_mask: bool (True: may be read) or added to the scores; broadcasts to (B, H, N, M).
        dropout_p: not applied.
        is_causal: token n reads the first n tokens alone.
        scale: of the scores; None: 1 / sqrt(D).
        enable_gqa: not known here.

    Returns:
        (B, N, M); each row sums to one.
    """
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.float().softmax(-1).mean(1)


class AttentionMaps(TorchFunctionMode):
    """Keeps the attention of what is computed inside of `with`, by the part of the model that attends.

    Models compute attention by one function of torch that returns no maps; here its arguments are looked at on their
    way, so that nothing about a model changes, and nothing is kept where nobody asks.

    Args:
        parts: modules by name; a map belongs to the innermost of them.

    Attributes:
        of: (B, N, M) maps by the name of the part, in the order of its layers.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.of: dict[str, list[Tensor]] = {name: [] for name in parts}
        self._parts = parts
        self._inside: list[str] = []
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        for name, part in self._parts.items():
            before = part.register_forward_pre_hook(lambda *_, name=name: self._inside.append(name))
            after = part.register_forward_hook(self._leave, always_call=True)
            self._hooks.callback(before.remove)
            self._hooks.callback(after.remove)
        return cast(Self, super().__enter__())  # type: ignore[no-untyped-call] # torch's own

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call] # torch's own
        self._hooks.close()

    def _leave(self, *_: object) -> None:
        self._inside.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch returns
        """Call torch, and look at the arguments of attention."""
        if func is functional.scaled_dot_product_attention and self._inside:
            self.of[self._inside[-1]].append(attention_weights(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def parts_of(stage: Stage[PairEncoder]) -> dict[str, nn.Module]:
    """What attends in a stage, by name: its encoders of one modality as a whole, and each attention of this project."""
    own = {name: part for name, part in stage.named_modules() if isinstance(part, Attention)}
    return {VISION: stage.encoder.vision, TEXT: stage.encoder.text, **own}


def mixed(own: Tensor, attention: Tensor, other: Tensor) -> Tensor:
    """One step: tokens that are half what they were and half what they attend to.

    Args:
        own: (N, C) shares of the N tokens.
        attention: (N, M), rows that sum to one.
        other: (M, C) shares of the tokens that are attended to.
    """
    return (own + attention @ other) / 2


def rolled_out(maps: Sequence[Tensor], tokens: int) -> Tensor:
    """(N, N): of each token behind a self-attending encoder, the share of each token before it; without maps, its own.

    Args:
        maps: (N, N) of each layer, the first one first.
        tokens: N.
    """
    shares = torch.eye(tokens)
    for attention in maps:
        shares = mixed(shares, attention.cpu(), shares)
    return shares


def image_shares(vision: nn.Module, maps: Sequence[Tensor], patches: int) -> Tensor:
    """(1 + P, 1 + P) of the image's tokens, summary first: columns are tokens without a place (one), then the patches.

    A network without attention over all of its patches gives each token its own patch, and a summary that is their
    mean a little of each.

    Args:
        vision: the vision encoder.
        maps: its (1, N, N) attention; N is P and the tokens without a place, which go first.
        patches: P.
    """
    shapes = {tuple(attention.shape) for attention in maps}
    (_, tokens, read), *others = shapes or {(1, 0, 0)}
    plain = len(maps) > 0 and not others and tokens == read >= patches and all(len(one) == 1 for one in maps)
    if isinstance(vision, PixelMaskedVision):
        shares = rolled_out([one[0] for one in maps], tokens) if plain else torch.eye(patches)
        placeless = shares.shape[1] - patches
        shares = torch.cat([shares[placeless:, :placeless].sum(1, keepdim=True), shares[placeless:, placeless:]], dim=1)
        return torch.cat([shares.mean(0, keepdim=True), shares])
    return rolled_out([one[0] for one in maps] if plain and tokens == patches + 1 else [], patches + 1)


@dataclass(frozen=True, slots=True)
class Shares:
    """What an answer is made of, by attention.

    Attributes:
        tokens: (L,) of the text's tokens.
        patches: (P,) of the image's patches.
    """

    tokens: Tensor
    patches: Tensor


def shares_of_answer(stage: Stage[PairEncoder], maps: AttentionMaps, tokens: int, real: int) -> Shares:
    """Roll the attention of one pair out, from its tokens and patches to what the head or the decoder reads.

    Args:
        stage: whose maps they are.
        maps: kept while one pair was scored.
        tokens: L, padding included.
        real: how many of them are no padding.
    """
    encoder, patches = stage.encoder, stage.encoder.vision.patches
    text_maps = [one[0] for one in maps.of[TEXT] if one.shape[1:] == (tokens, tokens)]
    text = functional.pad(rolled_out(text_maps, tokens), (0, 1 + patches))
    image = functional.pad(image_shares(encoder.vision, maps.of[VISION], patches), (tokens, 0))
    if isinstance(encoder, GGPEncoder):
        joint = _written(maps, _through(maps, "encoder.fusion", text, image), real)
    else:
        assert isinstance(encoder, MultimodalEncoder)
        joint = _pooled(encoder, *_fused(encoder, maps, text, image), real)
    return Shares(joint[:tokens], joint[tokens + 1 : tokens + 1 + patches])


def _fused(encoder: MultimodalEncoder, maps: AttentionMaps, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Both stacks, layer by layer: each reads what the other was before."""
    if not isinstance(encoder.fusion, Fusion):
        return text, image
    for number in range(len(encoder.fusion.text_layers)):
        names = (f"encoder.fusion.{kind}_layers.{number}" for kind in ("text", "image"))
        text, image = (
            _layer(maps, name, *pair) for name, pair in zip(names, ((text, image), (image, text)), strict=True)
        )
    return text, image


def _pooled(encoder: MultimodalEncoder, text: Tensor, image: Tensor, real: int) -> Tensor:
    """(C,) of z = [z_T ; z_I], either half as much; of an absent modality nothing."""
    if encoder.config.pooling == "first":
        halves = text[0], image[0]
    else:
        halves = text[: None if encoder.config.pooling == "mean_padded" else real].mean(0), image.mean(0)
    there = [half for half, part in zip(halves, (encoder.text, encoder.vision), strict=True) if part.width]
    return torch.stack(there).mean(0)


def _through(maps: AttentionMaps, stack: str, own: Tensor, other: Tensor) -> Tensor:
    """A stack of co-attention layers that all read the same other tokens."""
    for number in range(sum(name.startswith(f"{stack}.") for name in maps.of) // 2):
        own = _layer(maps, f"{stack}.{number}", own, other)
    return own


def _layer(maps: AttentionMaps, name: str, own: Tensor, other: Tensor) -> Tensor:
    attention = maps.of[f"{name}.self_attention"][0][0].cpu()
    own = mixed(own[: len(attention)], attention, own)  # a last layer may have computed the first token alone
    return mixed(own, maps.of[f"{name}.cross_attention"][0][0].cpu(), other)


def _written(maps: AttentionMaps, states: Tensor, real: int) -> Tensor:
    """(C,) of an answer: the mean over the places from which the answer decoder told its tokens."""
    places = maps.of["decoder.layers.0.self_attention"][0].shape[1]
    answer = functional.pad(torch.eye(places), (states.shape[1], 0))
    return _through(maps, "decoder.layers", answer, functional.pad(states, (0, places))).mean(0)
