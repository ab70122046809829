"""TD-Calib: task-oriented distribution calibration (UMD section 3.3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umd.checkpoints import HandOver
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.modules.objectives import ReconstructionConfig
from umd.modules.reconstruction import ReconstructionModule
from umd.optim import OptimizerConfig


class TDCalib(ReconstructionModule):
    """Go on rebuilding masked pairs on the downstream data, its labels unused (Eq. 8, S = 4: no matching).

    The poolers and the matching head of MR-Pretrain are carried along unchanged for the stages behind. Where the
    earlier stage had no matching head (presets mae, clip and flip), there is none here either.

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

    def on_fit_start(self) -> None:
        """As for every stage; without an earlier one nothing is carried."""
        super().on_fit_start()
        if not (self.init_from or self.trainer.ckpt_path):
            self.carry_only(())

    def after_hand_over(self, report: HandOver) -> None:
        """Carry what the earlier stage had."""
        super().after_hand_over(report)
        self.carry_only(name for name in self.state_dict() if name not in report.missing)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Carry what the checkpoint has."""
        super().on_load_checkpoint(checkpoint)
        self.carry_only(checkpoint["state_dict"])

    def carry_only(self, held: Iterable[str]) -> None:
        """Leave out the heads that are neither trained here nor in the earlier stage: their weights are random."""
        kept = {name.split(".")[0] for name in held}
        carried = {name.split(".")[0] for name, p in self.named_head_parameters() if not p.requires_grad}
        for name in carried - kept:
            delattr(self, name)
