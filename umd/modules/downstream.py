"""What the stages on labelled data share: contributions for GM-Coord, and a title for their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from umd.encoders import MultimodalEncoder
from umd.modules.base import EncoderT, Stage, StageModule
from umd.optim import OptimizerConfig
from umd.protocols import HasDescription


class Downstream(Stage[EncoderT]):
    """A stage on labelled pairs whose modalities can be coordinated (UMD section 3.3.2).

    Args:
        encoder: the encoder's settings, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of an earlier stage; null starts from the encoders' own weights.
    """

    def __init__(
        self,
        encoder: object,
        optimizer: OptimizerConfig | Mapping[str, Any],
        init_from: str | None,
    ) -> None:
        super().__init__(encoder, optimizer, init_from)
        self._contributions: dict[str, Tensor] = {}
        self._description: Mapping[str, str] = {}

    def setup(self, stage: str) -> None:
        """Take down what the data says of itself, then start as every stage does."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, HasDescription):
            self._description = data.description
        super().setup(stage)

    def modality_parameters(self) -> Mapping[str, list[Parameter]]:
        """See `umd.protocols.HasModalities`."""
        return self.encoder.modality_parameters()

    def modality_contributions(self) -> Mapping[str, Tensor]:
        """See `umd.protocols.HasModalities`."""
        return dict(self._contributions)

    def add_contributions(self, contributions: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's contributions, (B,) for each modality, to this optimizer step's sums."""
        for name, values in contributions.items():
            total = values.sum()
            earlier = self._contributions.get(name)
            self._contributions[name] = total if earlier is None else earlier + total

    def after_optimizer_step(self, updated: bool) -> None:
        """Contributions are summed anew for the next step."""
        self._contributions = {}

    def report_heading(self) -> tuple[str, list[str]]:
        """Title and first notes of the test report: the data, its protocol, and what else it says of itself."""
        facts = dict(self._description)
        data, protocol = facts.pop("data", "unnamed data"), facts.pop("protocol", None)
        title = f"{data}, protocol {protocol}" if protocol else data
        return title, [f"{name}: {value}" for name, value in facts.items()]


class DownstreamModule(Downstream[MultimodalEncoder], StageModule):
    """A downstream stage on UMD's multi-modal encoder; arguments as in `Downstream`."""
