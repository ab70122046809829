"""Gradient-guided modality coordination, GM-Coord (UMD, section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.nn import Embedding, Parameter
from torch.optim import Optimizer

from umd.files import UserError
from umd.protocols import HasModalities

Noise = Literal["modulated", "both", "none"]

TOGETHER = 16
"""So many gradients are modulated at a time, about a layer's: their noise needs no more memory than that."""


def ratios(contributions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How far each of two modalities is ahead of the other one: rho_u = C_u / C_other (UMD Eq. 11).

    Args:
        contributions: The sum of Eq. 10 over the samples of a step, by modality; two scalars, not negative.

    Returns:
        rho by modality. Where both contributions are zero, both are 1; where one is, the other's is infinite.

    Raises:
        ValueError: If there are not two modalities.
    """
    if len(contributions) != 2:
        raise ValueError(f"Eq. 11 compares two modalities, not {len(contributions)}: {list(contributions)}.")
    (one, c_one), (two, c_two) = contributions.items()
    neither = (c_one == 0) & (c_two == 0)
    return {one: torch.where(neither, 1.0, c_one / c_two), two: torch.where(neither, 1.0, c_two / c_one)}


def coefficients(contributions: Mapping[str, Tensor], beta: float) -> dict[str, Tensor]:
    """Factor on each modality's gradient: k = 1 - tanh(beta * rho) for the one ahead, else 1 (UMD Eq. 12).

    Args:
        contributions: As for `ratios`.
        beta: Strength of the slowing, above 0.

    Returns:
        k by modality, in 0..1; both 1 on a tie.

    Raises:
        ValueError: If there are not two modalities.
    """
    rho = ratios(contributions)
    one, two = rho
    return {
        u: torch.where(rho[u] > rho[other], 1.0 - torch.tanh(beta * rho[u]), 1.0)
        for u, other in ((one, two), (two, one))
    }


@torch.no_grad()
def modulate(
    gradients: Sequence[Tensor],
    coefficient: float,
    generator: torch.Generator,
    noise: bool = True,
    rows: Mapping[Tensor, Tensor] | None = None,
) -> None:
    """Coordinates gradients, each by itself and in place (UMD Eq. 13): g becomes k * g + N(0, std(g)^2).

    Args:
        gradients: g, of any shapes; the standard deviation (unbiased) is taken before scaling.
        coefficient: k.
        generator: Where the noise comes from, on the gradients' device; drawn in their order.
        noise: Whether to add noise. A single element has no standard deviation and gets none.
        rows: Of those gradients (V, D) of which only some rows may get noise: these rows, (R,) int64.
    """
    rows = rows or {}
    noisy = [g for g in gradients if noise and g.numel() > 1]
    spreads = [g.std() for g in noisy]
    torch._foreach_mul_(list(gradients), coefficient)
    if not noisy:
        return
    # A step sees few rows of a vocabulary; drawing for all of them would cost more than the rest of this callback.
    parts = [g[rows[g]] if g in rows else g for g in noisy]
    drawn = [torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device) for p in parts]
    torch._foreach_mul_(drawn, spreads)
    torch._foreach_add_(parts, drawn)
    for g, part in zip(noisy, parts, strict=True):
        if g in rows:
            g[rows[g]] = part


@torch.no_grad()
def touched_rows(gradients: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """Those rows of each gradient (V, D) that are not all zero, (R,) int64; one transfer from the device for all."""
    if not gradients:
        return {}
    # Counts what is not zero, without a mask as large as the gradient.
    counts = torch.cat([torch.linalg.vector_norm(g, ord=0, dim=1) for g in gradients]).cpu()
    parts = torch.split(counts, [len(g) for g in gradients])
    return {g: part.nonzero()[:, 0].to(g.device) for g, part in zip(gradients, parts, strict=True)}


def step_seed(seed: int, step: int) -> int:
    """A generator's seed for one optimizer step: equal on all ranks, unrelated for neighbouring steps."""
    return int(np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1, np.uint64)[0])


class ModalityCoordination(Callback):
    """Slows the modality that is ahead, so that the other one catches up (UMD section 3.3.2, GM-Coord).

    Once per optimizer step, in `on_before_optimizer_step` (after all micro-batches, before clipping), it
    reads the module's contributions (Eq. 10), sums them over ranks, and rewrites the gradients of its
    modalities by Eq. 11 to 13. The module tells both through `umd.protocols.HasModalities`, and resets its
    sums itself once this hook has run. Parameters without a gradient are skipped, and so is the whole step
    where a gradient is not finite (float16 mixed precision drops such a step). The noise is a function of
    seed and global step, the same on every rank.

    Logs `coordination/k_<modality>`, `coordination/rho_<modality>` and
    `coordination/contribution_<modality>` at every optimizer step.

    Args:
        beta: Strength of the slowing; the paper's 0.1.
        noise: Which gradients get the noise of Eq. 13: those of the slowed modality ("modulated", the paper),
            of both at every step ("both", the released code), or none ("none").
        seed: Seed of the noise.

    Raises:
        UserError: If an argument is out of its range.
    """

    def __init__(self, beta: float = 0.1, noise: Noise = "modulated", seed: int = 0) -> None:
        super().__init__()
        if not 0 < beta < float("inf"):
            raise UserError(f"beta is {beta!r}: a finite number above 0 is needed.")
        if noise not in ("modulated", "both", "none"):
            raise UserError(f"noise is {noise!r}: 'modulated', 'both' or 'none' is allowed.")
        if seed < 0:
            raise UserError(f"seed is {seed!r}: an integer of 0 or more is needed.")
        self.beta = beta
        self.noise: Noise = noise
        self.seed = seed
        self._modalities: dict[str, list[Parameter]] = {}
        self._embeddings: set[Tensor] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads which parameters belong to which modality, and refuses what cannot work.

        Raises:
            MisconfigurationException: If the module does not meet `HasModalities` with two disjoint
                modalities, steps its optimizers itself, or is sharded by the strategy.
        """
        name = type(pl_module).__name__
        if not isinstance(pl_module, HasModalities):
            raise MisconfigurationException(
                "ModalityCoordination compares how well each modality alone gives the true answer (Eq. 10): it "
                f"needs a stage on labelled data, and {name} is none. Leave it out of trainer.callbacks; or give a "
                "module of your own the methods modality_parameters() -> Mapping[str, Iterable[Parameter]] and "
                "modality_contributions() -> Mapping[str, Tensor] (umd.protocols.HasModalities)."
            )
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"ModalityCoordination needs automatic optimization, and {name} steps its optimizers itself: "
                "the hook would run at each step of each optimizer, or, for unwrapped optimizers, never."
            )
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise MisconfigurationException(
                f"ModalityCoordination cannot run under {type(trainer.strategy).__name__}: it shards "
                "gradients, and no rank sees their standard deviation. Use a single device or 'ddp'."
            )
        self._modalities = {u: list(dict.fromkeys(ps)) for u, ps in pl_module.modality_parameters().items()}
        if len(self._modalities) != 2 or not all(self._modalities.values()):
            sizes = {u: len(ps) for u, ps in self._modalities.items()}
            raise MisconfigurationException(
                f"ModalityCoordination needs two modalities with parameters; {name}.modality_parameters() "
                f"has these, with so many tensors each: {sizes}."
            )
        one, two = map(set, self._modalities.values())
        if shared := one & two:
            names = [n for n, p in pl_module.named_parameters() if p in shared]
            raise MisconfigurationException(
                f"{name}.modality_parameters() has parameters in both of {list(self._modalities)}: {names}."
            )
        embeddings = [m for m in pl_module.modules() if isinstance(m, Embedding)]
        if any(m.sparse and m.weight in one | two for m in embeddings):
            raise MisconfigurationException("ModalityCoordination cannot read sparse gradients: use sparse=False.")
        self._embeddings = {m.weight for m in embeddings}

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Rewrites the gradients of both modalities, once per optimizer step."""
        assert isinstance(pl_module, HasModalities)  # by on_fit_start
        contributions = self._global_contributions(trainer, pl_module)
        k, rho = coefficients(contributions, self.beta), ratios(contributions)
        pl_module.log_dict(
            {
                f"coordination/{name}_{u}": values[u]
                for name, values in (("k", k), ("rho", rho), ("contribution", contributions))
                for u in contributions
            },
            on_step=True,
            on_epoch=False,
        )
        gradients = {u: {p: p.grad for p in ps if p.grad is not None} for u, ps in self._modalities.items()}
        every = [g for of_one in gradients.values() for g in of_one.values()]
        if not every:
            return
        finite = torch.stack(torch._foreach_norm(every)).isfinite().all()
        # The one transfer from the device: all that decides what is done below. A second one tells rows of embeddings.
        *numbers, usable = torch.stack([*k.values(), finite]).tolist()
        if not usable:
            return
        factors = dict(zip(k, numbers, strict=True))
        noised = {u: self.noise == "both" or (self.noise == "modulated" and factors[u] < 1) for u in k}
        rows = touched_rows([g for u in k if noised[u] for p, g in gradients[u].items() if p in self._embeddings])
        generator = torch.Generator(every[0].device).manual_seed(step_seed(self.seed, trainer.global_step))
        for u, factor in factors.items():
            if factor == 1 and not noised[u]:
                continue
            own = list(gradients[u].values())
            for first in range(0, len(own), TOGETHER):
                modulate(own[first : first + TOGETHER], factor, generator, noised[u], rows)

    def _global_contributions(self, trainer: Trainer, module: HasModalities) -> dict[str, Tensor]:
        local = module.modality_contributions()
        if local.keys() != self._modalities.keys() or any(c.ndim for c in local.values()):
            shapes = {u: tuple(c.shape) for u, c in local.items()}
            raise MisconfigurationException(
                f"modality_contributions() needs one scalar for each of {list(self._modalities)}, "
                f"and has these shapes: {shapes}."
            )
        # A new tensor, because the reduction is in place and the sums belong to the module.
        stacked = torch.stack([local[u].detach().float() for u in self._modalities]).to(trainer.strategy.root_device)
        total = trainer.strategy.reduce(stacked, reduce_op="sum")
        assert isinstance(total, Tensor)
        return dict(zip(self._modalities, total.unbind(), strict=True))
