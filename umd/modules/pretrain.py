"""MR-Pretrain: multi-level reconstruction pre-training (UMD section 3.2), and the baselines it is compared with."""

from __future__ import annotations

from umd.encoders import EncoderConfig
from umd.modules.objectives import ReconstructionConfig
from umd.modules.reconstruction import ReconstructionModule
from umd.optim import OptimizerConfig


class MRPretrain(ReconstructionModule):
    """Rebuild masked pairs and a teacher's features of them, and tell matching pairs from swapped ones (Eq. 7).

    The preset, or a list of one's own, chooses the objectives: `umd` all five; `m3ae` MIM + MLM + ITM; `mae` MIM on
    images alone, read from the vision encoder without the fusion; `clip` and `flip` the contrastive loss between the
    first tokens of both uni-modal encoders. What they do not train is frozen and handed on as initialised.

    Args:
        encoder: the multi-modal encoder.
        optimizer: AdamW and its schedule.
        reconstruction: the objectives, what is hidden and what is rebuilt.
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
