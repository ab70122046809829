"""MR-Pretrain: multi-level reconstruction pre-training (UMD section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from umd.batch import ImageTextBatch
from umd.encoders import EncoderConfig
from umd.losses.matching import matching_loss
from umd.masking import swap_images
from umd.modules.reconstruction import ReconstructionConfig, ReconstructionModule, Terms
from umd.optim import OptimizerConfig, ParameterGroup


class MRPretrain(ReconstructionModule):
    """Rebuild masked pairs and a teacher's features of them, and tell matching pairs from swapped ones (Eq. 7).

    Args:
        encoder: the multi-modal encoder.
        optimizer: AdamW and its schedule.
        reconstruction: what is hidden and rebuilt; preset "umd" (five terms) or "m3ae" (MIM + MLM + ITM).
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

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Encoders at lr; fusion, decoders and the matching head at their multiples."""
        head = ParameterGroup("matching", list(self.matching_head.parameters()), self.optimizer_config.head_multiplier)
        return [*self.encoder_groups(), self.decoder_group, head]

    def terms(self, batch: ImageTextBatch, *place: int) -> Terms:
        """All five unweighted terms (three with preset m3ae)."""
        pixels = self.encoder.vision.normalize(batch.image)
        rebuilt = self.reconstruction_terms(batch, pixels, *place)
        return replace(rebuilt, itm=self.matching_loss(batch, pixels, *place))

    def matching_loss(self, batch: ImageTextBatch, pixels: Tensor, *place: int) -> Tensor:
        """L_ITM (Eq. 6): one forward of unmasked pairs, half of the images swapped within the batch."""
        generator = self.generator(self.reconstruction.mask_seed + 1, *place)
        source, match = swap_images(len(batch), generator)
        pooled = self.encoder.pool(self.encode(batch, pixels[source]))
        return matching_loss(self.matching_head(pooled.joint), match)
