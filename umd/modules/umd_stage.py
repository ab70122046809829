"""What the stages on UMD's own encoder share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from umd.encoders import EncoderConfig, MultimodalEncoder
from umd.files import UserError
from umd.modules.base import Stage, from_plain
from umd.optim import OptimizerConfig, ParameterGroup


class UMDStage(Stage[MultimodalEncoder]):
    """A stage on the multi-modal encoder E = (E_I, E_T, F) (UMD section 3.1).

    Args:
        encoder: the multi-modal encoder's settings; with one modality, where the stage takes that.
        optimizer: the optimizer's settings.
        init_from: checkpoint of an earlier stage whose weights a new training starts from.
    """

    takes_one_modality: bool = False
    """Whether the stage makes sense without a vision encoder, or without a text encoder."""

    def __init__(
        self,
        encoder: EncoderConfig | Mapping[str, Any],
        optimizer: OptimizerConfig | Mapping[str, Any],
        init_from: str | None,
    ) -> None:
        super().__init__(encoder, optimizer, init_from)

    def build_encoder(self, settings: EncoderConfig | Mapping[str, Any], published: bool) -> MultimodalEncoder:
        """See `Stage.build_encoder`."""
        config = from_plain(EncoderConfig, settings)
        for name in ("vision", "text"):
            if getattr(config, name) is None and not self.takes_one_modality:
                raise UserError(f"encoder.{name} is null, but {type(self).__name__} needs both modalities")
        return MultimodalEncoder(config if published else replace(config, vision_weights=None, text_weights=None))

    def encoder_groups(self) -> list[ParameterGroup]:
        """The encoder's parameters: both uni-modal encoders at lr, fusion and poolers at their multiple."""
        fusion = [*self.encoder.fusion.parameters(), *self.encoder.pooler_parameters()]
        return [
            ParameterGroup("vision", list(self.encoder.vision.parameters())),
            ParameterGroup("text", list(self.encoder.text.parameters())),
            ParameterGroup("fusion", fusion, self.optimizer_config.fusion_multiplier),
        ]
