"""E = (E_I, E_T, F): the multi-modal encoder that all stages share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from umd.encoders.feature_memory import FeatureMemory
from umd.encoders.fusion import Fusion, Pick, first_token, initialize, recomputed
from umd.encoders.interfaces import PairEncoder, normalizes_over_batches
from umd.encoders.one_modality import NoText, NoVision, OneModality
from umd.encoders.registry import build_text, build_vision
from umd.files import UserError
from umd.masking import PatchMask

logger = logging.getLogger(__name__)


Pooling = Literal["first", "mean", "mean_padded"]
EncoderPart = Literal["vision", "text", "fusion"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What the multi-modal encoder is made of. Defaults: UMD's, with random weights.

    Attributes:
        image_size: pixels along the side of the square input.
        vision: name of the vision encoder in the registry; null for a model of the text alone.
        vision_weights: null (random), "default" (hub or package) or a local path.
        vision_options: further options of that encoder's builder.
        freeze_vision: leave the vision encoder as it is: no gradient, no dropout, fixed statistics. On a CPU its
            features of whole images are kept in memory, so that each image is encoded once (about 1 GB at most).
        text: name of the text encoder in the registry; null for a model of the image alone.
        text_weights: null (random), "default" (hub or package) or a local path.
        text_options: further options of that encoder's builder.
        fusion_width: size D of a fused token; with one encoder, its tokens are projected to it.
        fusion_layers: co-attention layers N_m per modality; with one encoder, there are none.
        fusion_heads: attention heads of the fusion.
        fusion_dropout: dropout of the fusion.
        fusion_layer_norm_eps: epsilon of the fusion's LayerNorms.
        pooling: "first" token, "mean" over all real tokens, or "mean_padded" over all positions, padding
            included: what the released UMD code does when it fine-tunes.
        checkpoint_activations: parts whose activations are computed a second time in the backward, in the place of
            being kept: "vision", "text", "fusion". Less memory and more time, the same gradients.
    """

    image_size: int = 288
    vision: str | None = "clip_vit_b16"
    vision_weights: str | None = None
    vision_options: dict[str, Any] = field(default_factory=dict)
    freeze_vision: bool = False
    text: str | None = "roberta_base"
    text_weights: str | None = None
    text_options: dict[str, Any] = field(default_factory=dict)
    fusion_width: int = 768
    fusion_layers: int = 6
    fusion_heads: int = 12
    fusion_dropout: float = 0.1
    fusion_layer_norm_eps: float = 1e-12
    pooling: Pooling = "first"
    checkpoint_activations: list[EncoderPart] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        if self.vision is None and self.text is None:
            raise UserError("vision and text are both null; at least one encoder is needed")
        for name in ("vision", "text"):
            left_over = [f"{name}_{part}" for part in ("weights", "options") if getattr(self, f"{name}_{part}")]
            if getattr(self, name) is None and left_over:
                raise UserError(f"{name} is null, so {' and '.join(left_over)} must not be set")
        if self.vision is None and self.freeze_vision:
            raise UserError("vision is null, so freeze_vision must not be set")
        if self.pooling not in get_args(Pooling):
            raise UserError(f"pooling is '{self.pooling}'; allowed: {', '.join(get_args(Pooling))}")
        for part in self.checkpoint_activations:
            if part not in get_args(EncoderPart):
                raise UserError(f"checkpoint_activations has '{part}'; allowed: {', '.join(get_args(EncoderPart))}")
        if not 0 <= self.fusion_dropout < 1:
            raise UserError(f"fusion_dropout is {self.fusion_dropout}; it must lie in [0, 1)")


@dataclass(frozen=True, slots=True)
class Features:
    """What the multi-modal encoder puts out; of a modality that it does not have, one token of width 0.

    Attributes:
        text: Z_T, (B, L, D).
        image: Z_I, (B, 1 + P', D).
        text_mask: (B, L) bool, True at real tokens.
    """

    text: Tensor
    image: Tensor
    text_mask: Tensor


@dataclass(frozen=True, slots=True)
class Pooled:
    """One vector per modality and sample; of a modality that the encoder does not have, one of width 0.

    Attributes:
        text: z_T, (B, D).
        image: z_I, (B, D).
    """

    text: Tensor
    image: Tensor

    @property
    def joint(self) -> Tensor:
        """The concatenation z = [z_T ; z_I], (B, 2 D); with one modality (B, D)."""
        return torch.cat([self.text, self.image], dim=1)


class MultimodalEncoder(PairEncoder):
    """Vision encoder, text encoder, fusion and poolers; or one encoder, its projection and its pooler.

    Args:
        config: what to build.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(
            vision=NoVision()
            if config.vision is None
            else build_vision(
                config.vision,
                image_size=config.image_size,
                weights=config.vision_weights,
                options=config.vision_options,
            ),
            text=NoText()
            if config.text is None
            else build_text(config.text, weights=config.text_weights, options=config.text_options),
        )
        self.config = config
        self._memory = FeatureMemory()
        if config.freeze_vision:
            self.vision.requires_grad_(False).eval()
        if "vision" in config.checkpoint_activations and normalizes_over_batches(self.vision):
            raise UserError(
                f"checkpoint_activations has 'vision', but '{config.vision}' normalises over batches: computed twice, "
                "its statistics would count each batch twice. Leave 'vision' out"
            )
        if config.vision is not None and (rest := config.image_size % self.vision.patch_size):
            logger.info("image_size %d: the last %d pixels right and bottom fill no patch", config.image_size, rest)
        width = config.fusion_width
        self.fusion: Fusion | OneModality
        if self.modalities == 2:
            self.fusion = Fusion(
                text_width=self.text.width,
                image_width=self.vision.width,
                width=width,
                layers=config.fusion_layers,
                heads=config.fusion_heads,
                dropout=config.fusion_dropout,
                layer_norm_eps=config.fusion_layer_norm_eps,
                checkpoint_layers="fusion" in config.checkpoint_activations,
            )
        else:
            self.fusion = OneModality(text_width=self.text.width, image_width=self.vision.width, width=width)
        self.text_pooler = nn.Identity() if config.text is None else nn.Linear(width, width)
        self.image_pooler = nn.Identity() if config.vision is None else nn.Linear(width, width)
        initialize(self.text_pooler, width)
        initialize(self.image_pooler, width)

    @property
    def modalities(self) -> int:
        """How many modalities it encodes: 2, or 1."""
        return 2 - (self.config.vision is None) - (self.config.text is None)

    @property
    def width(self) -> int:
        """Size D of a fused token."""
        return self.config.fusion_width

    def forward(
        self,
        pixels: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        mask: PatchMask | None = None,
        image_index: Tensor | None = None,
        pick_image: Pick | None = None,
    ) -> Features:
        """Encode and fuse.

        Args:
            pixels: (B, 3, S, S) from `vision.normalize`; with `image_index` (U, 3, S, S).
            input_ids: (B, L) int64.
            attention_mask: (B, L) bool.
            mask: patches to hide; None shows all. It goes without `image_index`.
            image_index: (B,) int64, which of the U images each pair has; None: each its own.
            pick_image: the tokens of Z_I that are computed; None: all.
        """
        image = self.encode_images(pixels, image_index) if mask is None else self.image_tokens(pixels, mask)
        return self.fuse(self.text_tokens(input_ids, attention_mask), attention_mask, image, pick_image)

    def fuse(self, text: Tensor, text_mask: Tensor, image: Tensor, pick_image: Pick | None = None) -> Features:
        """Z_T and Z_I of B pairs, from (B, L, W_T) and (B, 1 + P, W_I) of the uni-modal encoders."""
        fused_text, fused_image = self.fusion(text, text_mask, image, None, pick_image)
        return Features(fused_text, fused_image, text_mask)

    def pooled(
        self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor, image_index: Tensor | None = None
    ) -> Pooled:
        """z_T and z_I of B pairs: what `pool` makes of `forward`, without the tokens that it does not read.

        Args:
            pixels: (U, 3, S, S) from `vision.normalize`.
            input_ids: (B, L) int64.
            attention_mask: (B, L) bool.
            image_index: (B,) int64, which of the U images each pair has; None: each its own.
        """
        image = self.encode_images(pixels, image_index)
        return self.fuse_pooled(self.text_tokens(input_ids, attention_mask), attention_mask, image)

    def image_tokens(self, pixels: Tensor, mask: PatchMask | None = None) -> Tensor:
        """See `PairEncoder.image_tokens`."""
        # Pixels that want a gradient of their own get one through a frozen encoder too.
        if self.config.freeze_vision and not pixels.requires_grad:
            return self._frozen_features(pixels, mask)
        return recomputed(self.vision, "vision" in self.config.checkpoint_activations, pixels, mask)

    def text_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The text encoder's tokens, (B, L, W); arguments as in `forward`."""
        return recomputed(self.text, "text" in self.config.checkpoint_activations, input_ids, attention_mask)

    def fuse_pooled(self, text: Tensor, text_mask: Tensor, image: Tensor) -> Pooled:
        """z_T and z_I of B pairs, from (B, L, W_T) and (B, 1 + P, W_I) of the uni-modal encoders."""
        pick: Pick | None = first_token if self.config.pooling == "first" else None
        fused_text, fused_image = self.fusion(text, text_mask, image, pick, pick)
        return self.pool(Features(fused_text, fused_image, text_mask))

    @torch.no_grad()
    def _frozen_features(self, pixels: Tensor, mask: PatchMask | None) -> Tensor:
        # A program that is traced here remembers nothing.
        if mask is None and pixels.device.type == "cpu" and not torch.compiler.is_exporting():
            return self._memory.encode(pixels, self.vision)
        features: Tensor = self.vision(pixels, mask)
        return features

    def remember(self, images: int) -> None:
        """Keep the features of at most so many images in memory, where the vision encoder is frozen."""
        self._memory = FeatureMemory(images)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; a frozen vision encoder always evaluates."""
        super().train(mode)
        if self.config.freeze_vision:
            self.vision.eval()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's own hook
        self._memory.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def pool(self, features: Features) -> Pooled:
        """z_T and z_I: first token (or a mean, see `EncoderConfig`) -> Linear -> tanh, one pooler per modality."""
        if self.config.pooling == "first":
            text, image = features.text[:, 0], features.image[:, 0]
        elif self.config.pooling == "mean_padded":
            text, image = features.text.mean(1), features.image.mean(1)
        else:
            weights = features.text_mask.to(features.text.dtype)
            text = (features.text * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)
            image = features.image.mean(1)
        return Pooled(torch.tanh(self.text_pooler(text)), torch.tanh(self.image_pooler(image)))

    def pooler_parameters(self) -> Iterator[Parameter]:
        """Parameters of the two poolers."""
        yield from self.text_pooler.parameters()
        yield from self.image_pooler.parameters()

    def modality_parameters(self) -> Mapping[str, list[Parameter]]:
        """Vision = E_I, its projection, the image stack; language = E_T, its projection, the text stack.

        The modality embedding and the poolers belong to neither (method: GM-Coord, UMD section 3.3.2).

        Raises:
            UserError: the encoder has one modality.
        """
        if not isinstance(self.fusion, Fusion):
            raise UserError(
                f"encoder.{'vision' if self.config.vision is None else 'text'} is null: a model of one modality has "
                "nothing to coordinate; leave callbacks.ModalityCoordination out"
            )
        return {
            "vision": [*self.vision.parameters(), *self.fusion.image_parameters()],
            "language": [*self.text.parameters(), *self.fusion.text_parameters()],
        }
