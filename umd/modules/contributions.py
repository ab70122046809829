"""The contributions of the two modalities, of which GM-Coord makes its rates (UMD section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import Parameter

from umd.modules.base import EncoderT, Stage


class Contributions(Stage[EncoderT]):
    """Mixin of a stage on labelled pairs whose modalities can be coordinated: see `umd.protocols.HasModalities`."""

    _contributions: Mapping[str, Tensor] = {}

    def modality_parameters(self) -> Mapping[str, list[Parameter]]:
        """See `umd.protocols.HasModalities`."""
        return self.encoder.modality_parameters()

    def modality_contributions(self) -> Mapping[str, Tensor]:
        """See `umd.protocols.HasModalities`."""
        return self._contributions

    def add_contributions(self, contributions: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's contributions, (B,) for each modality, to this optimizer step's sums."""
        earlier, sums = self._contributions, {name: values.sum() for name, values in contributions.items()}
        self._contributions = {**earlier, **{name: earlier.get(name, 0) + value for name, value in sums.items()}}

    def after_optimizer_step(self, updated: bool) -> None:
        """Contributions are summed anew for the next step."""
        self._contributions = {}
