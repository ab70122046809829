"""Gaussian noise on the weights, as large as gradient-guided perturbation: the same without its direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.modality_coordination import step_seed
from callbacks.weight_perturbation import Norm, WeightPerturbation


@torch.no_grad()
def noise_like(perturbations: Sequence[Tensor], seed: int) -> list[Tensor]:
    """For each tensor normal noise, rescaled to that tensor's norm.

    Args:
        perturbations: Tensors of any shapes.
        seed: Of the noise, the same for the same seed on every process.
    """
    generators: dict[torch.device, torch.Generator] = {}
    found = []
    for r in perturbations:
        if r.device not in generators:
            generators[r.device] = torch.Generator(r.device).manual_seed(seed)
        drawn = torch.randn(r.shape, generator=generators[r.device], dtype=r.dtype, device=r.device)
        found.append(drawn * (r.norm() / drawn.norm()))
    return found


class WeightNoise(WeightPerturbation):
    """Loss and gradient at weights with normal noise, of the norm that GGP's perturbation has at that step.

    What `WeightPerturbation` does is done with a random direction in the place of the optimizer's first moment: all
    else, the norm of each tensor's change included, is the same. So the two differ in the direction alone. The
    nearest published relative is Flipout (Wen et al., ICLR 2018), which GGP's paper names; that draws a perturbation
    for each sample of a batch, this one for each step, the same on every rank and in every micro-batch. Nothing is
    clipped: `perturbation/clipped_share` is the share of elements beyond GGP's bound.

    Args:
        modules: As in `WeightPerturbation`, with the arguments below.
        adaptive: See there.
        delta: See there.
        fixed_weight: See there.
        epsilon: See there.
        norm: See there.
        seed: Seed of the noise.

    Raises:
        UserError: If an argument is out of its range.
    """

    def __init__(
        self,
        modules: Sequence[str] = ("encoder.vision",),
        adaptive: bool = True,
        delta: float = 0.05,
        fixed_weight: float = 0.05,
        epsilon: float = 1e-3,
        norm: Norm = "encoder",
        seed: int = 0,
    ) -> None:
        super().__init__(modules, adaptive, delta, fixed_weight, epsilon, norm)
        self.seed = seed

    @torch.no_grad()
    def turn(self, trainer: Trainer, perturbations: Sequence[Tensor]) -> None:
        """Noise of the size of what the base class would add."""
        if perturbations:
            noise = noise_like(perturbations, step_seed(self.seed, trainer.global_step))
            torch._foreach_copy_(list(perturbations), noise)
