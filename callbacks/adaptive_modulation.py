"""Adaptive gradient modulation, AGM (Li et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from callbacks.modality_coordination import ModalityCoordination
from umd.files import UserError
from umd.protocols import HasModalities


def adaptive_coefficients(scores: Mapping[str, Tensor], means: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Factor on each modality's gradient: kappa = exp(-alpha * (r - tau)).

    With r = exp(s_u - s_other), how far a modality is ahead in this step, and tau = exp(m_u - m_other), how far it has
    been on average.

    Args:
        scores: s, the log-likelihood that each of two modalities alone gives the true answers of this step; scalars.
        means: m, their means over the steps so far.
        alpha: Strength, above 0.

    Returns:
        kappa by modality: below 1 for the one that is further ahead than it was, above 1 for the other.

    Raises:
        ValueError: If there are not two modalities.
    """
    if len(scores) != 2:
        raise ValueError(f"two modalities are compared, not {len(scores)}: {list(scores)}.")
    one, two = scores
    return {
        u: torch.exp(-alpha * (torch.exp(scores[u] - scores[other]) - torch.exp(means[u] - means[other])))
        for u, other in ((one, two), (two, one))
    }


class AdaptiveModulation(ModalityCoordination):
    """Slows the modality that is further ahead than it was on average so far, and speeds the other one up (AGM).

    Of the rivals of GM-Coord the one that fits fusions that mix both modalities: it asks what one modality alone
    answers by leaving the other one out, as `contribution: masked_head` does, where PMR and MMPareto want heads and
    losses of their own for each modality. Here, on the protocol `umd.protocols.HasModalities`: s_u is the logarithm
    of the modality's contribution (of its mean probability of the true answers; the paper means the logarithms, of
    Shapley values by leaving out), and kappa scales the gradients of its parameters (in the paper also its share of
    the gradient of layers that both use). A step in which a modality contributes nothing is left as it is.

    Logs `coordination/kappa_<modality>` and `coordination/contribution_<modality>`. The means go into checkpoints.

    Args:
        alpha: Strength, above 0.

    Raises:
        UserError: If it is out of its range.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if not 0 < alpha < float("inf"):
            raise UserError(f"alpha is {alpha!r}: a finite number above 0 is needed.")
        super().__init__(beta=alpha, noise="none")
        self.steps = 0
        self.means: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The mean scores so far."""
        return {"steps": self.steps, "means": {u: float(mean) for u, mean in self.means.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from them."""
        self.steps = state_dict["steps"]
        self.means = {u: torch.tensor(mean, dtype=torch.float64) for u, mean in state_dict["means"].items()}

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Scales the gradients of both modalities, once per optimizer step."""
        assert isinstance(pl_module, HasModalities)  # by on_fit_start
        contributions = self._global_contributions(trainer, pl_module)
        if not all(0 < float(c) < float("inf") for c in contributions.values()):
            return
        scores = {u: c.double().log().cpu() for u, c in contributions.items()}
        self.steps += 1
        earlier = self.means or scores
        self.means = {u: earlier[u] + (scores[u] - earlier[u]) / self.steps for u in scores}
        kappa = adaptive_coefficients(scores, self.means, self.beta)
        pl_module.log_dict(
            {
                f"coordination/{name}_{u}": values[u].float()
                for name, values in (("kappa", kappa), ("contribution", contributions))
                for u in values
            },
            on_step=True,
            on_epoch=False,
        )
        for u, factor in kappa.items():
            gradients = [p.grad for p in self._modalities[u] if p.grad is not None]
            if gradients:
                torch._foreach_mul_(gradients, float(factor))
