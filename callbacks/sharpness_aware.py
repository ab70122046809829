"""Sharpness-aware minimization, SAM (Foret et al., ICLR 2021), and ASAM (Kwon et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from umd.files import UserError


@torch.no_grad()
def ascent(weights: Sequence[Tensor], gradients: Sequence[Tensor], *, rho: float, eta: float | None) -> list[Tensor]:
    """Where the loss rises most within a ball around the weights, to first order.

    SAM (Eq. 2): `e = rho * g / ||g||`. ASAM (Eq. 8): `e = rho * T^2 g / ||T g||` with `T = |w| + eta`, elementwise.

    Args:
        weights: w.
        gradients: g, shaped like the weights; norms are over all of them.
        rho: Radius.
        eta: What ASAM adds to the weights' magnitude; None: SAM.

    Returns:
        e, shaped like the weights; zeros where g is zero.
    """
    scales = [torch.ones_like(w) if eta is None else w.abs() + eta for w in weights]
    scaled = [scale * g for scale, g in zip(scales, gradients, strict=True)]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(scaled)))
    factor = torch.where(norm > 0, rho / norm, 0.0)
    return [scale * one * factor for scale, one in zip(scales, scaled, strict=True)]


class SharpnessAware(Callback):
    """Takes each step with the gradient at the weights that make its batch's loss worst nearby (SAM, ASAM).

    A step is two passes, forward and backward: the first finds the direction, the second gives the gradient, which the
    optimizer applies to the unmoved weights. So it costs about as much as two plain steps, and is to be compared with
    a plain training of twice the length. Weights that have no gradient are not moved. A loss whose gradient is not
    finite gets no second pass.

    Whatever hangs on a backward or on `on_before_optimizer_step` runs in both passes, and epoch means of what is
    logged are over both; running statistics of batch normalisation see both. Dropout draws anew.

    Logs nothing. Works with any optimizer under automatic optimization, under DDP (the direction is that of the
    gradient over all ranks) and bf16-mixed. Refused: accumulation, since earlier micro-batches are gone at the second
    pass, and 16-mixed, whose scaler leaves the optimizer no second pass.

    Args:
        rho: Radius; SAM's 0.05. ASAM's papers take about ten times that.
        adaptive: ASAM: the ball is measured relative to each weight.
        eta: Of ASAM: added to the weights' magnitude.

    Raises:
        UserError: If an argument is out of its range.
    """

    def __init__(self, rho: float = 0.05, adaptive: bool = False, eta: float = 0.01) -> None:
        super().__init__()
        for name, value in (("rho", rho), ("eta", eta)):
            if not 0 < value < float("inf"):
                raise UserError(f"{name} is {value!r}: a finite number above 0 is needed.")
        self.rho = rho
        self.adaptive = adaptive
        self.eta = eta
        self._handles: list[RemovableHandle] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes hold of the optimizers' steps, and refuses what cannot work.

        Raises:
            MisconfigurationException: Steps are accumulated, scaled or taken by the module, or weights are sharded.
        """
        refused = {
            "automatic optimization: the module steps its optimizers itself": not pl_module.automatic_optimization,
            "accumulate_grad_batches=1: its second pass sees one batch": trainer.accumulate_grad_batches != 1,
            "precision '32-true' or 'bf16-mixed', not '16-mixed'": trainer.precision == "16-mixed",
            "a strategy that shards no weights": isinstance(
                trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy
            ),
        }
        for needed, is_refused in refused.items():
            if is_refused:
                raise MisconfigurationException(f"SharpnessAware needs {needed}.")
        self._handles = [o.register_step_pre_hook(self._twice) for o in trainer.optimizers]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the optimizers."""
        self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lets go of the optimizers; Lightning calls no teardown after an exception."""
        self._let_go()

    def _let_go(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _twice(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The step's arguments with a closure of two passes, in the place of Lightning's own of one."""
        one_pass: Callable[[], Any] = kwargs["closure"]

        def two_passes() -> Any:  # noqa: ANN401 - what the closure returns
            first = one_pass()
            weights = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if not weights or first is None:
                return first
            gradients = [p.grad for p in weights if p.grad is not None]
            if not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
                return first
            kept = [p.detach().clone() for p in weights]
            move = ascent(weights, gradients, rho=self.rho, eta=self.eta if self.adaptive else None)
            try:
                with torch.no_grad():
                    torch._foreach_add_(weights, move)
                return one_pass()
            finally:
                with torch.no_grad():
                    torch._foreach_copy_(weights, kept)

        return args, {**kwargs, "closure": two_passes}
