"""On-the-fly gradient modulation with generalization enhancement, OGM-GE (Peng et al., CVPR 2022)."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from callbacks.modality_coordination import ModalityCoordination
from umd.files import UserError


class GradientModulation(ModalityCoordination):
    """OGM-GE, of which GM-Coord was made: on the same protocol, `umd.protocols.HasModalities`.

    Its discrepancy ratio (Eq. 8) and its coefficient (Eq. 10: k = 1 - tanh(alpha * rho) where rho > 1, else 1) are
    those of GM-Coord (UMD, Eq. 11 and 12). What differs: the noise of generalization enhancement (Eq. 11) is added to
    both modalities at every step, also where nothing is slowed; and modulation is for some of the epochs only. The
    paper draws the noise with the covariance of the minibatch's gradient; its released code, and this class, with
    each tensor's own standard deviation, the code for convolutions alone.

    The paper scores a modality by its half of a head that is one linear layer (Eq. 7): `contribution: last_layer` in
    the stages here. Logs what `ModalityCoordination` logs.

    Args:
        alpha: Strength of the slowing, above 0; the paper takes 0.1 to 0.8 by data set.
        enhancement: Whether noise is added; without it is OGM alone.
        first_epoch: Modulate from this epoch on, counted from 0.
        last_epoch: And to this one; None: to the end.
        seed: Seed of the noise.

    Raises:
        UserError: If an argument is out of its range.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        enhancement: bool = True,
        first_epoch: int = 0,
        last_epoch: int | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 < alpha < float("inf"):
            raise UserError(f"alpha is {alpha!r}: a finite number above 0 is needed.")
        if first_epoch < 0 or (last_epoch is not None and last_epoch < first_epoch):
            raise UserError(
                f"epochs {first_epoch!r} to {last_epoch!r}: the first is 0 or more, and no later than the last."
            )
        super().__init__(beta=alpha, noise="both" if enhancement else "none", seed=seed)
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Rewrites the gradients of both modalities in the epochs that it is for."""
        last = trainer.current_epoch if self.last_epoch is None else self.last_epoch
        if self.first_epoch <= trainer.current_epoch <= last:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
