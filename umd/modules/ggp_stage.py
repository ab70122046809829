"""What the stages on GGP's own encoder share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch.nn import Parameter

from umd.encoders.ggp import GGPConfig, GGPEncoder
from umd.modules.base import Stage, from_plain
from umd.optim import ParameterGroup


class GGPStage(Stage[GGPEncoder]):
    """A stage on GGP's encoder (GGP section 2.2.1)."""

    def build_encoder(self, settings: GGPConfig | Mapping[str, Any], published: bool) -> GGPEncoder:
        """See `Stage.build_encoder`."""
        config = from_plain(GGPConfig, settings)
        return GGPEncoder(config if published else replace(config, vision_weights=None, text_weights=None))

    def grouped(self, heads: Iterable[Parameter]) -> list[ParameterGroup]:
        """The encoder's parameters, and those of the heads that are not the encoder's own word embeddings."""
        config = self.optimizer_config
        fusion = [*self.encoder.image_projection.parameters(), *self.encoder.fusion.parameters()]
        own = set(self.encoder.parameters())
        return [
            ParameterGroup("vision", list(self.encoder.vision.parameters())),
            ParameterGroup("text", list(self.encoder.text.parameters())),
            ParameterGroup("fusion", fusion, config.fusion_multiplier),
            ParameterGroup("heads", [p for p in heads if p not in own], config.head_multiplier),
        ]
