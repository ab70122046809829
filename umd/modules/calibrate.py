"""TD-Calib: task-oriented distribution calibration (UMD section 3.3.1)."""

from __future__ import annotations

from umd.batch import ImageTextBatch
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.modules.objectives import ReconstructionConfig, Terms
from umd.modules.reconstruction import ReconstructionModule
from umd.optim import OptimizerConfig


class TDCalib(ReconstructionModule):
    """Go on rebuilding masked pairs on the downstream data, its labels unused (Eq. 8, S = 4: no matching).

    The poolers and the matching head of MR-Pretrain are carried along unchanged for the stages behind.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule.
        reconstruction: what is hidden and rebuilt; preset "umd" (four terms) or "m3ae" (MIM + MLM).
        init_from: checkpoint of MR-Pretrain; null starts from the encoders' own weights.
    """

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        reconstruction: ReconstructionConfig = ReconstructionConfig(),  # noqa: B008 - frozen
        init_from: str | None = None,
    ) -> None:
        super().__init__(encoder, optimizer, reconstruction, init_from)
        if self.reconstruction.preset not in ("umd", "m3ae"):
            raise UserError(f"preset is '{self.reconstruction.preset}'; calibration rebuilds: umd or m3ae")
        for parameter in (*self.encoder.pooler_parameters(), *self.matching_head.parameters()):
            parameter.requires_grad_(False)

    def terms(self, batch: ImageTextBatch, *key: int) -> Terms:
        """The four unweighted terms (two with preset m3ae)."""
        return self.reconstruction_terms(batch, self.encoder.vision.normalize(batch.image), *key)
