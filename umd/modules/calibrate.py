"""TD-Calib: task-oriented distribution calibration (UMD section 3.3.1)."""

from __future__ import annotations

from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.modules.objectives import ReconstructionConfig
from umd.modules.reconstruction import ReconstructionModule
from umd.optim import OptimizerConfig


class TDCalib(ReconstructionModule):
    """Go on rebuilding masked pairs on the downstream data, its labels unused (Eq. 8, S = 4: no matching).

    The poolers and the matching head of MR-Pretrain are carried along unchanged for the stages behind.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule.
        reconstruction: what is hidden and rebuilt; preset "umd" (four terms) or "m3ae" (MIM + MLM), or a list of
            objectives, taken as it is.
        init_from: checkpoint of MR-Pretrain; null starts from the encoders' own weights.
    """

    carried = ("itm",)

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        reconstruction: ReconstructionConfig = ReconstructionConfig(),  # noqa: B008 - frozen
        init_from: str | None = None,
    ) -> None:
        super().__init__(encoder, optimizer, reconstruction, init_from)

    def choose(self, config: ReconstructionConfig) -> dict[str, float]:
        """Those of the preset but matching; or the list that was given.

        Raises:
            UserError: a preset that does not rebuild pairs.
        """
        if config.objectives is not None:
            return config.loss_weights
        if config.preset not in ("umd", "m3ae"):
            raise UserError(f"preset is '{config.preset}'; calibration rebuilds: umd or m3ae")
        return {name: weight for name, weight in config.loss_weights.items() if name != "itm"}
