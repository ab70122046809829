"""Masking, rebuilding, and the teacher: what MR-Pretrain and TD-Calib have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from umd.batch import ImageTextBatch
from umd.encoders import EncoderConfig, Features
from umd.encoders.fusion import initialize
from umd.heads.image_decoder import ImageDecoder
from umd.heads.text_decoder import TextDecoder
from umd.losses.feature_reconstruction import feature_loss
from umd.losses.masked_image import masked_image_loss, patch_statistics, patchify, unpatchify
from umd.losses.masked_language import masked_language_loss
from umd.masking import PatchMask, mask_patches, mask_tokens
from umd.modules.base import StageModule, from_plain
from umd.optim import OptimizerConfig, ParameterGroup

Preset = Literal["umd", "m3ae"]
TRAIN, VALIDATE, SHOW = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Terms:
    """The unweighted terms of one step, scalars; None where the preset has no such term.

    Attributes:
        mim: L_MIM, Eq. 1.
        mlm: L_MLM, Eq. 2.
        feature_mim: L_FeaMIM, Eq. 4.
        feature_mlm: L_FeaMLM, Eq. 4.
        itm: L_ITM, Eq. 6.
    """

    mim: Tensor
    mlm: Tensor
    feature_mim: Tensor | None = None
    feature_mlm: Tensor | None = None
    itm: Tensor | None = None

    def total(self, alpha: float) -> Tensor:
        """Eq. 7: (1 - alpha) (MIM + MLM) + alpha (FeaMIM + FeaMLM) + ITM; without feature terms MIM + MLM + ITM."""
        total = self.mim + self.mlm
        if self.feature_mim is not None and self.feature_mlm is not None:
            total = (1 - alpha) * total + alpha * (self.feature_mim + self.feature_mlm)
        return total if self.itm is None else total + self.itm

    def named(self) -> dict[str, Tensor]:
        """The terms that are there, by name, detached."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value.detach() for name, value in values if value is not None}


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What is hidden, and what is rebuilt from the rest. Defaults: UMD's.

    Attributes:
        preset: "umd" rebuilds data and the teacher's features, "m3ae" data only.
        alpha: weight of the feature terms against the data terms (Eq. 7).
        image_mask_ratio: share of patches that are hidden.
        text_mask_ratio: share of tokens that are hidden.
        whole_word: hide whole words instead of tokens.
        normalize_patches: rebuild patches standardised by their own mean and deviation (M3AE's norm_pix).
        teacher_decay: lambda of the teacher's moving average (Eq. 5), per optimizer step.
        decoder_width: width of the image decoder.
        decoder_layers: its blocks.
        decoder_heads: its attention heads.
        mask_seed: seed of masks and swaps.
    """

    preset: Preset = "umd"
    alpha: float = 0.5
    image_mask_ratio: float = 0.75
    text_mask_ratio: float = 0.15
    whole_word: bool = False
    normalize_patches: bool = True
    teacher_decay: float = 0.995
    decoder_width: int = 384
    decoder_layers: int = 4
    decoder_heads: int = 6
    mask_seed: int = 0

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        if self.preset not in get_args(Preset):
            raise ValueError(f"preset is '{self.preset}'; allowed: {', '.join(get_args(Preset))}")
        for name in ("alpha", "teacher_decay", "text_mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if not 0 < self.image_mask_ratio < 1:
            raise ValueError(f"image_mask_ratio is {self.image_mask_ratio}; it must lie between 0 and 1")


class ReconstructionModule(StageModule):
    """Mask image and text together, rebuild data and an EMA teacher's features.

    Args:
        encoder: the multi-modal encoder.
        optimizer: AdamW and its schedule.
        reconstruction: what is hidden and rebuilt.
        init_from: checkpoint of an earlier stage to start from.
    """

    hands_over = (
        "encoder.",
        "teacher.",
        "image_decoder.",
        "text_decoder.",
        "image_feature_projection.",
        "text_feature_projection.",
        "matching_head.",
    )

    def __init__(
        self,
        encoder: EncoderConfig | Mapping[str, Any],
        optimizer: OptimizerConfig | Mapping[str, Any],
        reconstruction: ReconstructionConfig | Mapping[str, Any],
        init_from: str | None,
    ) -> None:
        super().__init__(encoder, optimizer, init_from)
        self.reconstruction = from_plain(ReconstructionConfig, reconstruction)
        width = self.encoder.width
        self.image_decoder = ImageDecoder(
            input_width=width,
            width=self.reconstruction.decoder_width,
            layers=self.reconstruction.decoder_layers,
            heads=self.reconstruction.decoder_heads,
            patch_size=self.encoder.vision.patch_size,
            grid=self.encoder.vision.grid,
        )
        self.text_decoder = TextDecoder(width, self.encoder.text.vocab_size)
        self.matching_head = nn.Linear(2 * width, 2)
        initialize(self.matching_head)
        if self.rebuilds_features:
            self.image_feature_projection = nn.Linear(width, width)
            self.text_feature_projection = nn.Linear(width, width)
            self.teacher = copy.deepcopy(self.encoder).requires_grad_(False).eval()

    @property
    def rebuilds_features(self) -> bool:
        """Whether there is a teacher whose features are rebuilt."""
        return self.reconstruction.preset == "umd"

    @property
    def decoder_group(self) -> ParameterGroup:
        """Decoders and feature projections."""
        heads: list[nn.Module] = [self.image_decoder, self.text_decoder]
        if self.rebuilds_features:
            heads += [self.image_feature_projection, self.text_feature_projection]
        parameters = [parameter for head in heads for parameter in head.parameters()]
        return ParameterGroup("decoders", parameters, self.optimizer_config.head_multiplier)

    def position_tables(self) -> dict[str, int]:
        """The student's and the teacher's learned position tables."""
        tables = super().position_tables()
        if self.rebuilds_features:
            tables |= {name.replace("encoder.", "teacher.", 1): grid for name, grid in tables.items()}
        return tables

    def after_hand_over(self, missing: Sequence[str]) -> None:
        """Start the teacher from the student where the earlier stage had none."""
        if self.rebuilds_features and any(name.startswith("teacher.") for name in missing):
            self.teacher.load_state_dict(self.encoder.state_dict())

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; the teacher always evaluates."""
        super().train(mode)
        if self.rebuilds_features:
            self.teacher.eval()
        return self

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Eq. 5: teacher <- lambda teacher + (1 - lambda) student, once per optimizer step; buffers are copied."""
        if not self.rebuilds_features:
            return
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(teacher, student, 1 - self.reconstruction.teacher_decay)
        for kept, current in zip(self.teacher.buffers(), self.encoder.buffers(), strict=True):
            kept.copy_(current)

    def mask(self, batch: ImageTextBatch, *place: int) -> tuple[PatchMask, Tensor, Tensor]:
        """Masks of a batch at a place in training: patch mask, changed ids (B, L), labels (B, L)."""
        generator = self.generator(self.reconstruction.mask_seed, *place)
        patches = mask_patches(len(batch), self.encoder.vision.patches, self.reconstruction.image_mask_ratio, generator)
        tokens = mask_tokens(
            batch.input_ids,
            batch.special_tokens_mask,
            mask_token_id=batch.mask_token_id,
            vocab_size=self.encoder.text.vocab_size,
            ratio=self.reconstruction.text_mask_ratio,
            generator=generator,
            word_ids=batch.word_ids if self.reconstruction.whole_word else None,
        )
        return patches, tokens.input_ids, tokens.labels

    def reconstruction_terms(self, batch: ImageTextBatch, pixels: Tensor, *place: int) -> Terms:
        """Eq. 1, 2 and 4 on one batch; `pixels` are its normalised images."""
        patch_mask, input_ids, labels = self.mask(batch, *place)
        student: Features = self.encoder(pixels, input_ids, batch.attention_mask, patch_mask)
        patches = patchify(pixels, self.encoder.vision.patch_size)
        mim = masked_image_loss(
            self.image_decoder(student.image, patch_mask),
            patches,
            patch_mask.masked,
            self.reconstruction.normalize_patches,
        )
        mlm = masked_language_loss(self.text_decoder, student.text, labels)
        if not self.rebuilds_features:
            return Terms(mim, mlm)
        with torch.no_grad():
            teacher: Features = self.teacher(pixels, batch.input_ids, batch.attention_mask)
        seen = teacher.image
        if student.image.shape[1] != seen.shape[1]:
            seen = patch_mask.drop(seen)
        return Terms(
            mim,
            mlm,
            feature_mim=feature_loss(self.image_feature_projection, student.image, seen, None),
            feature_mlm=feature_loss(self.text_feature_projection, student.text, teacher.text, batch.attention_mask),
        )

    def terms(self, batch: ImageTextBatch, *place: int) -> Terms:
        """All unweighted terms of a stage on one batch."""
        return self.reconstruction_terms(batch, self.encoder.vision.normalize(batch.image), *place)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The weighted total of one batch, each term logged."""
        terms = self.terms(batch, TRAIN, self.current_epoch, batch_idx)
        loss = terms.total(self.reconstruction.alpha)
        size = len(batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"train/{k}": v for k, v in terms.named().items()}, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """The same terms under the same masks in every epoch, so that epochs can be compared."""
        terms = self.terms(batch, VALIDATE, batch_idx)
        named = {f"validation/{name}": value for name, value in terms.named().items()}
        named["validation/loss"] = terms.total(self.reconstruction.alpha)
        self.log_dict(named, batch_size=len(batch), sync_dist=True)

    @torch.no_grad()
    def reconstruct(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Input, masked input (hidden patches grey), and reconstruction, each (B, 3, S, S) in 0..1.

        Patches that stayed visible are shown as they are. Standardised patches get their own mean and deviation
        back, which the network does not predict.
        """
        vision = self.encoder.vision
        pixels = vision.normalize(batch.image)
        patch_mask, input_ids, _ = self.mask(batch, SHOW)
        student: Features = self.encoder(pixels, input_ids, batch.attention_mask, patch_mask)
        patches = patchify(pixels, vision.patch_size)
        predicted = self.image_decoder(student.image, patch_mask).to(patches.dtype)
        if self.reconstruction.normalize_patches:
            mean, deviation = patch_statistics(patches)
            predicted = predicted * deviation + mean
        hidden = patch_mask.masked[:, :, None]
        shown = (patches, patches.masked_fill(hidden, 0.0), torch.where(hidden, predicted, patches))
        original, masked, rebuilt = (vision.denormalize(unpatchify(part, vision.patch_size)) for part in shown)
        return original, masked, rebuilt
