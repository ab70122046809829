"""MR-Pretrain: multi-level reconstruction pre-training (UMD section 3.2), and the baselines it is compared with."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from umd.batch import ImageTextBatch
from umd.distributed import gather
from umd.encoders import EncoderConfig
from umd.losses.alignment import alignment_loss
from umd.losses.matching import matching_loss
from umd.masking import PatchMask, swap_images
from umd.modules.objectives import ReconstructionConfig, Terms
from umd.modules.reconstruction import ReconstructionModule
from umd.optim import OptimizerConfig

MAX_LOG_SCALE = math.log(100)


class MRPretrain(ReconstructionModule):
    """Rebuild masked pairs and a teacher's features of them, and tell matching pairs from swapped ones (Eq. 7).

    The preset chooses the objectives: `umd` all five; `m3ae` MIM + MLM + ITM; `mae` MIM on images alone, read
    from the vision encoder without the fusion; `clip` and `flip` the contrastive loss between the first tokens of
    both uni-modal encoders. What a preset does not train is frozen and handed on as initialised.

    Args:
        encoder: the multi-modal encoder.
        optimizer: AdamW and its schedule.
        reconstruction: the preset, what is hidden and what is rebuilt.
        init_from: checkpoint of an earlier pre-training to start from.
    """

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        reconstruction: ReconstructionConfig = ReconstructionConfig(),  # noqa: B008 - frozen
        init_from: str | None = None,
    ) -> None:
        super().__init__(encoder, optimizer, reconstruction, init_from)
        objectives = self.reconstruction.objectives
        if "contrastive" in objectives:
            width = self.reconstruction.contrastive_width
            self.image_contrast = nn.Linear(self.encoder.vision.width, width, bias=False)
            self.text_contrast = nn.Linear(self.encoder.text.width, width, bias=False)
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        if "itm" not in objectives:
            for parameter in (*self.encoder.fusion.parameters(), *self.encoder.pooler_parameters()):
                parameter.requires_grad_(False)
        if "mae" == self.reconstruction.preset:
            self.encoder.text.requires_grad_(False)
            self.encoder.fusion.image_projection.requires_grad_(True)  # the decoder reads through it

    @torch.no_grad()
    def after_optimizer_step(self, updated: bool) -> None:
        """Move the teacher; keep the learned temperature from falling below 0.01, as CLIP does."""
        super().after_optimizer_step(updated)
        if "contrastive" in self.reconstruction.objectives:
            self.log_scale.clamp_(max=MAX_LOG_SCALE)

    def terms(self, batch: ImageTextBatch, *key: int) -> Terms:
        """All unweighted terms of the preset."""
        pixels = self.encoder.vision.normalize(batch.image)
        objectives = self.reconstruction.objectives
        if "contrastive" in objectives:
            return Terms(contrastive=self.contrastive_loss(batch, pixels, *key))
        if "itm" not in objectives:
            mask = self.patch_mask(batch, *key)
            trunk = self.image_decoder.trunk(self.visible_features(batch, pixels, mask), mask)
            return Terms(mim=self.image_loss(trunk, pixels, mask))
        rebuilt = self.reconstruction_terms(batch, pixels, *key)
        return replace(rebuilt, itm=self.matching_loss(batch, pixels, *key))

    def visible_features(self, batch: ImageTextBatch, pixels: Tensor, mask: PatchMask) -> Tensor:
        """The tokens from which the image decoder rebuilds; preset mae leaves text and fusion out."""
        if self.reconstruction.preset == "mae":
            projected: Tensor = self.encoder.fusion.image_projection(self.encoder.vision(pixels, mask))
            return projected
        return super().visible_features(batch, pixels, mask)

    def matching_loss(self, batch: ImageTextBatch, pixels: Tensor, *key: int) -> Tensor:
        """L_ITM (Eq. 6): one forward of unmasked pairs, half of the images swapped within the batch."""
        generator = self.generator(self.reconstruction.mask_seed, 2, *key)
        source, match = swap_images(len(batch), generator)
        pooled = self.encoder.pool(self.encode(batch, pixels[source]))
        return matching_loss(self.matching_head(pooled.joint), match)

    def contrastive_loss(self, batch: ImageTextBatch, pixels: Tensor, *key: int) -> Tensor:
        """CLIP's loss over the pairs of all ranks, gathered with their gradients; every rank has as many pairs."""
        mask = self.patch_mask(batch, *key) if self.reconstruction.hidden_share else None
        image = self.image_contrast(self.encoder.vision(pixels, mask)[:, 0])
        text = self.text_contrast(self.encoder.text(batch.input_ids, batch.attention_mask)[:, 0])
        all_images, all_texts, offset = image, text, 0
        if self.trainer.world_size > 1 and self.trainer.training:
            all_images, all_texts = gather(image), gather(text)
            offset = self.global_rank * len(batch)
        return alignment_loss(image, text, all_images, all_texts, offset, self.log_scale)
