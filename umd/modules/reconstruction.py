"""Masking, rebuilding, and the teacher: what MR-Pretrain and TD-Calib have in common."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import Parameter

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
from umd.modules.objectives import ReconstructionConfig, Terms
from umd.optim import OptimizerConfig, ParameterGroup

TRAIN, VALIDATE, SHOW = 0, 1, 2


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
        "trunk_projection.",
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
        self.reconstruction = config = from_plain(ReconstructionConfig, reconstruction)
        width = self.encoder.width
        if "mim" in config.objectives:
            self.image_decoder = ImageDecoder(
                input_width=width,
                width=config.decoder_width,
                layers=config.decoder_layers,
                heads=config.decoder_heads,
                patch_size=self.encoder.vision.patch_size,
                grid=self.encoder.vision.grid,
            )
        if "mlm" in config.objectives:
            self.text_decoder = TextDecoder(width, self.encoder.text.vocab_size)
        if "itm" in config.objectives:
            self.matching_head = nn.Linear(2 * width, 2)
            initialize(self.matching_head, width)
        if self.has_teacher:
            self.image_feature_projection = nn.Linear(width, width)
            self.text_feature_projection = nn.Linear(width, width)
            if config.feature_target == "masked":
                self.trunk_projection = nn.Linear(config.decoder_width, width)
            self.teacher = copy.deepcopy(self.encoder).requires_grad_(False).eval()

    @property
    def has_teacher(self) -> bool:
        """Whether there is a teacher whose features are rebuilt."""
        return "feature_mim" in self.reconstruction.objectives

    def head_parameters(self) -> Iterator[Parameter]:
        """All parameters outside the encoder and the teacher."""
        for name, parameter in self.named_parameters():
            if not name.startswith(("encoder.", "teacher.")):
                yield parameter

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Encoders at lr; fusion, and decoders and heads, at their multiples."""
        heads = ParameterGroup("heads", list(self.head_parameters()), self.optimizer_config.head_multiplier)
        return [*self.encoder_groups(), heads]

    def position_tables(self) -> dict[str, int]:
        """The student's and the teacher's learned position tables."""
        tables = super().position_tables()
        if self.has_teacher:
            tables |= {name.replace("encoder.", "teacher.", 1): grid for name, grid in tables.items()}
        return tables

    def after_hand_over(self, missing: Sequence[str]) -> None:
        """Start the teacher from the student where the earlier stage had none."""
        if self.has_teacher and any(name.startswith("teacher.") for name in missing):
            self.teacher.load_state_dict(self.encoder.state_dict())

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; the teacher always evaluates."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    @torch.no_grad()
    def after_optimizer_step(self, updated: bool) -> None:
        """Eq. 5: teacher <- lambda teacher + (1 - lambda) student, once per optimizer step; buffers are copied."""
        if not (updated and self.has_teacher):
            return
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(teacher, student, 1 - self.reconstruction.teacher_decay)
        for kept, current in zip(self.teacher.buffers(), self.encoder.buffers(), strict=True):
            kept.copy_(current)

    def patch_mask(self, batch: ImageTextBatch, *key: int) -> PatchMask:
        """The patches that are hidden in a batch at a position in training."""
        generator = self.generator(self.reconstruction.mask_seed, 0, *key)
        return mask_patches(len(batch), self.encoder.vision.patches, self.reconstruction.hidden_share, generator)

    def token_mask(self, batch: ImageTextBatch, *key: int) -> tuple[Tensor, Tensor]:
        """The ids that the student reads and the labels of hidden tokens, (B, L) each."""
        tokens = mask_tokens(
            batch.input_ids,
            batch.special_tokens_mask,
            mask_token_id=batch.mask_token_id,
            vocab_size=self.encoder.text.vocab_size,
            ratio=self.reconstruction.text_mask_ratio,
            generator=self.generator(self.reconstruction.mask_seed, 1, *key),
            word_ids=batch.word_ids if self.reconstruction.whole_word else None,
        )
        return tokens.input_ids, tokens.labels

    def reconstruction_terms(self, batch: ImageTextBatch, pixels: Tensor, *key: int) -> Terms:
        """Eq. 1, 2 and 4 on one batch; `pixels` are its normalised images."""
        mask = self.patch_mask(batch, *key)
        input_ids, labels = self.token_mask(batch, *key)
        student: Features = self.encoder(pixels, input_ids, batch.attention_mask, mask)
        trunk = self.image_decoder.trunk(student.image, mask)
        mim = self.image_loss(trunk, pixels, mask)
        mlm = masked_language_loss(self.text_decoder, student.text, labels)
        if not self.has_teacher:
            return Terms(mim=mim, mlm=mlm)
        with torch.no_grad():
            teacher: Features = self.teacher(pixels, batch.input_ids, batch.attention_mask)
        text_loss = feature_loss(self.text_feature_projection, student.text, teacher.text, batch.attention_mask)
        if self.reconstruction.feature_target == "masked":
            rebuilt, target, valid = self.trunk_projection(trunk[:, 1:]), teacher.image[:, 1:], mask.masked
        else:
            dropped = student.image.shape[1] != teacher.image.shape[1]
            rebuilt, target, valid = student.image, mask.drop(teacher.image) if dropped else teacher.image, None
        image_loss = feature_loss(self.image_feature_projection, rebuilt, target, valid)
        return Terms(mim=mim, mlm=mlm, feature_mim=image_loss, feature_mlm=text_loss)

    def image_loss(self, trunk: Tensor, pixels: Tensor, mask: PatchMask) -> Tensor:
        """L_MIM from the image decoder's features (B, 1 + P, decoder width) and the normalised images."""
        patches = patchify(pixels, self.encoder.vision.patch_size)
        predicted = self.image_decoder.predict(trunk[:, 1:])
        return masked_image_loss(predicted, patches, mask.masked, self.reconstruction.normalize_patches)

    @abstractmethod
    def terms(self, batch: ImageTextBatch, *key: int) -> Terms:
        """All unweighted terms of the stage on one batch, at a position in training."""

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The weighted total of one batch, each term logged."""
        terms = self.terms(batch, TRAIN, self.current_epoch, batch_idx)
        loss = terms.total(self.reconstruction.alpha)
        size = len(batch)
        self._terms = terms.named()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"train/{k}": v for k, v in self._terms.items()}, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """The same terms under the same masks in every epoch, so that epochs can be compared."""
        terms = self.terms(batch, VALIDATE, batch_idx)
        named = {f"validation/{name}": value for name, value in terms.named().items()}
        named["validation/loss"] = terms.total(self.reconstruction.alpha)
        self.log_dict(named, batch_size=len(batch), sync_dist=True)

    @torch.no_grad()
    def reconstruct(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor, Tensor] | None:
        """Input, masked input (hidden patches grey), and reconstruction, each (B, 3, S, S) in 0..1.

        None where the preset rebuilds no images.

        Patches that stayed visible are shown as they are. Standardised patches get their own mean and deviation
        back, which the network does not predict.
        """
        if "mim" not in self.reconstruction.objectives:
            return None
        vision = self.encoder.vision
        pixels = vision.normalize(batch.image)
        mask = self.patch_mask(batch, SHOW)
        features = self.visible_features(batch, pixels, mask)
        patches = patchify(pixels, vision.patch_size)
        predicted = self.image_decoder(features, mask).to(patches.dtype)
        if self.reconstruction.normalize_patches:
            mean, deviation = patch_statistics(patches)
            predicted = predicted * deviation + mean
        hidden = mask.masked[:, :, None]
        shown = (patches, patches.masked_fill(hidden, 0.0), torch.where(hidden, predicted, patches))
        original, masked, rebuilt = (vision.denormalize(unpatchify(part, vision.patch_size)) for part in shown)
        return original, masked, rebuilt

    def visible_features(self, batch: ImageTextBatch, pixels: Tensor, mask: PatchMask) -> Tensor:
        """The tokens from which the image decoder rebuilds, (B, 1 + K, D), with the text in full view."""
        features: Features = self.encoder(pixels, batch.input_ids, batch.attention_mask, mask)
        return features.image
