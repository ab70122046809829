"""One batch as the networks of pre-training see it: what objectives read, and what their gradients then reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import Parameter
from torch.utils.checkpoint import checkpoint

from umd.batch import ImageTextBatch
from umd.encoders.fusion import Fusion
from umd.encoders.multimodal import Features, MultimodalEncoder, Pooled
from umd.heads.image_decoder import ImageDecoder
from umd.masking import IGNORED, MaskedTokens, PatchMask, mask_patches, mask_tokens, swap_images

HeadT = TypeVar("HeadT", bound=nn.Module | Parameter)

View = Literal[
    "masked_image",
    "masked_text",
    "teacher",
    "swapped_pair",
    "image_tokens",
    "masked_image_tokens",
    "masked_image_projection",
    "text_tokens",
]
Part = Literal["vision", "text", "image_projection", "fusion", "last_image_layer", "last_text_layer", "poolers"]

_PAIR: frozenset[Part] = frozenset({"vision", "text", "image_projection", "fusion"})
REACHED: Mapping[View, frozenset[Part]] = {
    "masked_image": _PAIR | {"last_image_layer"},
    "masked_text": _PAIR | {"last_text_layer"},
    "teacher": frozenset(),
    "swapped_pair": _PAIR | {"last_image_layer", "last_text_layer", "poolers"},
    "image_tokens": frozenset({"vision"}),
    "masked_image_tokens": frozenset({"vision"}),
    "masked_image_projection": frozenset({"vision", "image_projection"}),
    "text_tokens": frozenset({"text"}),
}
"""The parts of the encoder that a gradient from each view reaches: all others are frozen."""

HIDES_PATCHES: frozenset[View] = frozenset(
    {"masked_image", "masked_text", "masked_image_tokens", "masked_image_projection"}
)


def parts(encoder: MultimodalEncoder) -> dict[Part, list[Parameter]]:
    """The parameters of an encoder of both modalities by part, each in exactly one.

    The last layers of the fusion stand alone: what the last one of the text stack puts out, no image token reads.
    """
    fusion = encoder.fusion
    if not isinstance(fusion, Fusion):
        raise TypeError("the encoder has one modality and no fusion")
    found: dict[Part, list[Parameter]] = {
        "vision": list(encoder.vision.parameters()),
        "text": list(encoder.text.parameters()),
        "image_projection": list(fusion.image_projection.parameters()),
        "last_image_layer": list(fusion.image_layers[-1].parameters()),
        "last_text_layer": list(fusion.text_layers[-1].parameters()),
        "poolers": list(encoder.pooler_parameters()),
    }
    elsewhere = {parameter for part in found.values() for parameter in part}
    return found | {"fusion": [parameter for parameter in fusion.parameters() if parameter not in elsewhere]}


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How much is hidden.

    Attributes:
        image_ratio: share of patches.
        text_ratio: share of tokens; None leaves the text in full view.
        whole_word: hide whole words instead of tokens.
    """

    image_ratio: float
    text_ratio: float | None
    whole_word: bool


@dataclass(frozen=True, kw_only=True)
class Views:
    """What objectives read of one batch; each forward runs when it is first read, and once.

    Attributes:
        batch: B pairs.
        encoder: E, the student.
        teacher: its moving average, where an objective reads it.
        heads: the module that holds the heads under their names.
        masking: how much is hidden.
        generator: a new source of randomness by number: 0 for patches, 1 for tokens, 2 for swaps.
        gathers: whether there are other ranks whose pairs count too.
        hidden_features: whether the teacher's image features are read at hidden patches, too.
        one_vision: whether teacher and student encode whole images alike, their frozen weights being the same.
        chunk: pairs that go through one encoder alone at a time; None: all. With a number they are encoded a second
            time in the backward, in the place of keeping every activation; the gradient is the same.
    """

    batch: ImageTextBatch
    encoder: MultimodalEncoder
    teacher: MultimodalEncoder | None
    heads: nn.Module
    masking: Masking
    generator: Callable[[int], Generator]
    gathers: bool
    hidden_features: bool
    one_vision: bool
    chunk: int | None = None

    def head(self, name: str, kind: type[HeadT]) -> HeadT:
        """The head of this name."""
        found = getattr(self.heads, name)
        if not isinstance(found, kind):
            raise TypeError(f"{name} is a {type(found).__name__}, not a {kind.__name__}")
        return found

    # What is hidden and what is swapped

    @cached_property
    def images(self) -> Tensor:
        """(U, 3, S, S) normalised, each image of the batch once."""
        return self.encoder.vision.normalize(self.batch.image)

    @cached_property
    def pixels(self) -> Tensor:
        """(B, 3, S, S) normalised, the image of each pair."""
        return self.batch.per_pair(self.images)

    @cached_property
    def patch_mask(self) -> PatchMask:
        """The patches that are hidden."""
        patches = self.encoder.vision.patches
        return mask_patches(len(self.batch), patches, self.masking.image_ratio, self.generator(0))

    @cached_property
    def masked_tokens(self) -> MaskedTokens:
        """The ids that the student reads, and the labels of hidden tokens."""
        batch, ratio = self.batch, self.masking.text_ratio
        if ratio is None:
            return MaskedTokens(batch.input_ids, torch.full_like(batch.input_ids, IGNORED))
        return mask_tokens(
            batch.input_ids,
            batch.special_tokens_mask,
            mask_token_id=batch.mask_token_id,
            vocab_size=self.encoder.text.vocab_size,
            ratio=ratio,
            generator=self.generator(1),
            word_ids=batch.word_ids if self.masking.whole_word else None,
        )

    @cached_property
    def swaps(self) -> tuple[Tensor, Tensor]:
        """(B,) int64, the image that each text is paired with, and (B,) int64, 1 = match and 0 = swapped."""
        return swap_images(len(self.batch), self.generator(2))

    # The pair

    @cached_property
    def _masked_pair(self) -> Features:
        input_ids = self.masked_tokens.input_ids
        features: Features = self.encoder(self.pixels, input_ids, self.batch.attention_mask, self.patch_mask)
        return features

    @property
    def masked_image(self) -> Tensor:
        """Z_I of the masked pair, (B, 1 + K, D), or (B, 1 + P, D) where hidden patches are blanked."""
        return self._masked_pair.image

    @property
    def masked_text(self) -> Tensor:
        """Z_T of the masked pair, (B, L, D)."""
        return self._masked_pair.text

    @cached_property
    def masked_image_trunk(self) -> Tensor:
        """The image decoder's last features on `masked_image`, (B, 1 + P, decoder width)."""
        return self.head("image_decoder", ImageDecoder).trunk(self.masked_image, self.patch_mask)

    @cached_property
    @torch.no_grad()
    def teacher_features(self) -> Features:
        """The teacher's Z_T and Z_I of the whole pair, without gradient; Z_I at the places of `masked_image`.

        With `hidden_features` Z_I is there at all patches.
        """
        if self.teacher is None:
            raise TypeError("an objective reads the teacher but does not say so")
        batch, everywhere = self.batch, self.hidden_features or self.encoder.vision.masking == "pixel"
        pick = None if everywhere else self.patch_mask.drop
        if self.one_vision:
            text = self.teacher.text_tokens(batch.input_ids, batch.attention_mask)
            return self.teacher.fuse(text, batch.attention_mask, batch.per_pair(self._frozen_image_tokens), pick)
        features: Features = self.teacher(
            self.images, batch.input_ids, batch.attention_mask, image_index=batch.image_index, pick_image=pick
        )
        return features

    @cached_property
    def swapped_pair(self) -> Pooled:
        """z_T and z_I of whole pairs of which half have another one's image, (B, D) each."""
        source, _ = self.swaps
        batch = self.batch
        if self.one_vision:
            text = self.encoder.text_tokens(batch.input_ids, batch.attention_mask)
            return self.encoder.fuse_pooled(
                text, batch.attention_mask, batch.per_pair(self._frozen_image_tokens)[source]
            )
        # Some images are swapped in more than once, some not at all: each that is there is encoded once.
        shown, place = torch.unique(
            source if batch.image_index is None else batch.image_index[source], return_inverse=True
        )
        return self.encoder.pooled(self.images[shown], batch.input_ids, batch.attention_mask, place)

    @cached_property
    def _frozen_image_tokens(self) -> Tensor:
        """(U, 1 + P, W) of whole images, each encoded once for teacher and student."""
        return self.encoder.image_tokens(self.images)

    # One modality alone, without the fusion

    @cached_property
    def image_tokens(self) -> Tensor:
        """(B, 1 + P, W) from the vision encoder."""
        return self._in_chunks(self.encoder.vision, self.pixels)

    @cached_property
    def masked_image_tokens(self) -> Tensor:
        """(B, 1 + P', W) from the vision encoder, patches hidden."""

        def encode(pixels: Tensor, keep: Tensor, masked: Tensor) -> Tensor:
            tokens: Tensor = self.encoder.vision(pixels, PatchMask(keep, masked))
            return tokens

        return self._in_chunks(encode, self.pixels, self.patch_mask.keep, self.patch_mask.masked)

    @cached_property
    def masked_image_projection(self) -> Tensor:
        """`masked_image_tokens` through the fusion's projection, (B, 1 + P', D)."""
        projected: Tensor = self.encoder.fusion.image_projection(self.masked_image_tokens)
        return projected

    @cached_property
    def text_tokens(self) -> Tensor:
        """(B, L, W) from the text encoder."""
        return self._in_chunks(self.encoder.text, self.batch.input_ids, self.batch.attention_mask)

    def _in_chunks(self, encode: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if self.chunk is None or not torch.is_grad_enabled():
            return encode(*inputs)
        chunks = zip(*(torch.split(rows, self.chunk) for rows in inputs), strict=True)
        # The generators' state is put back for the second time: the same dropout is drawn.
        return torch.cat([checkpoint(encode, *rows, use_reentrant=False) for rows in chunks])
