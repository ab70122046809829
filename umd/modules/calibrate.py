"""TD-Calib: task-oriented distribution calibration (UMD section 3.3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from umd.encoders import EncoderConfig
from umd.modules.reconstruction import ReconstructionConfig, ReconstructionModule
from umd.optim import OptimizerConfig, ParameterGroup


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
        for parameter in (*self.encoder.pooler_parameters(), *self.matching_head.parameters()):
            parameter.requires_grad_(False)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Encoders at lr; fusion and decoders at their multiples."""
        return [*self.encoder_groups(), self.decoder_group]
