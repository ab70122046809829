"""Gradient-guided weight perturbation (GGP, section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from callbacks.submodules import submodule
from umd.files import UserError

Norm = Literal["encoder", "tensor"]


@torch.no_grad()
def perturbation(
    parameters: Sequence[Tensor],
    moments: Sequence[Tensor],
    *,
    adaptive: bool,
    delta: float,
    fixed_weight: float,
    epsilon: float,
    norm: Norm,
    out: Sequence[Tensor] | None = None,
    scratch: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """What to add to the weights theta, given the optimizer's first moments m (GGP section 2.1).

    `r = delta * (||theta|| / ||m||) * m` (adaptive) or `r = fixed_weight * m`, then clipped elementwise to
    `[-epsilon * |theta|, +epsilon * |theta|]`. It points along +m, against the updates, which go along -m.

    Args:
        parameters: The weights theta, of any shapes.
        moments: The first moments m, shaped like the weights.
        adaptive: Whether the size follows the ratio of the norms; without, it is `fixed_weight`.
        delta: Norm of the unclipped adaptive perturbation, as a share of the weights' norm; far above `epsilon` it
            hardly changes the result.
        fixed_weight: Factor on m where `adaptive` is false.
        epsilon: Largest change of an element, as a share of its magnitude.
        norm: Norms over all `parameters` together ("encoder") or over each tensor by itself ("tensor").
        out: Tensors shaped like the weights to put the result in; made anew without.
        scratch: Tensors shaped like the weights to compute the bounds in; made anew without.

    Returns:
        The clipped perturbations, shaped like the weights; zeros where ||m|| is zero. `out`, where it was given.
    """
    if not parameters:
        return []
    theta, m = list(parameters), list(moments)
    r, bounds = ([torch.empty_like(t) for t in theta] if room is None else list(room) for room in (out, scratch))
    torch._foreach_copy_(r, m)
    if not adaptive:
        torch._foreach_mul_(r, fixed_weight)
    elif norm == "encoder":
        weight_norm, moment_norm = (torch.linalg.vector_norm(_norms(tensors)) for tensors in (theta, m))
        torch._foreach_mul_(r, _scale(delta, weight_norm, moment_norm))
    else:
        torch._foreach_mul_(r, list(_scale(delta, _norms(theta), _norms(m)).unbind()))
    torch._foreach_copy_(bounds, theta)
    torch._foreach_abs_(bounds)
    torch._foreach_mul_(bounds, epsilon)
    torch._foreach_minimum_(r, bounds)
    torch._foreach_neg_(bounds)
    torch._foreach_maximum_(r, bounds)
    return r


@torch.no_grad()
def statistics(parameters: Sequence[Tensor], perturbations: Sequence[Tensor], epsilon: float) -> tuple[Tensor, Tensor]:
    """How large a perturbation is, and how much of it the clipping decided.

    Args:
        parameters: The unperturbed weights; at least one tensor.
        perturbations: What `perturbation` returned for them.
        epsilon: The clipping margin it was given.

    Returns:
        `||r|| / ||theta||`, and the share (0..1) of elements that stand at the bound `epsilon * |theta|`.
        A weight of exactly zero cannot move, and counts as standing there.
    """
    theta, r = list(parameters), list(perturbations)
    ratio = torch.linalg.vector_norm(_norms(r)) / torch.linalg.vector_norm(_norms(theta))
    # One tensor after the other, so that no further copies of all the weights are made.
    pairs = zip(r, theta, strict=True)
    clipped = torch.stack([(one.abs() >= weight.abs().mul_(epsilon)).sum() for one, weight in pairs]).sum()
    return ratio, clipped / sum(tensor.numel() for tensor in theta)


def _norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


def _scale(delta: float, weight_norm: Tensor, moment_norm: Tensor) -> Tensor:
    # Without the guard: infinity times the zeros in m, which is NaN.
    return torch.where(moment_norm > 0, delta * weight_norm / moment_norm, 0.0)


class WeightPerturbation(Callback):
    """Takes each training step's loss and gradient at weights moved slightly against the latest updates.

    GGP (section 2.1) shifts the vision encoder's weights by `perturbation` before every forward of training,
    and applies the update to the unshifted weights. Here: shift in `on_train_batch_start`, put the snapshot
    back in `on_after_backward`, for every micro-batch. Validation and checkpoints see the unshifted weights
    alone, also a checkpoint written while they are shifted (by a signal handler, or inside `training_step`).

    Works on any LightningModule whose optimizers keep a first moment `exp_avg`. Frozen parameters, and those
    without a moment yet (the first step), are left alone. All micro-batches of a step are shifted alike. Logs
    `perturbation/norm_ratio` and `perturbation/clipped_share` at those steps that the trainer logs
    (`log_every_n_steps`); at others they are not computed. Takes the memory of two copies of the modules' weights.

    In manual optimization the first `manual_backward` of a step puts the weights back.

    Args:
        modules: Dotted names of the submodules to perturb. `norm="encoder"` takes its norms over each of them
            by itself; a parameter that two of them share belongs to the first.
        adaptive: Scale by the ratio of weight norm to moment norm, else by `fixed_weight`.
        delta: Size of the adaptive perturbation, as a share of the weights' norm before clipping; the paper gives no
            value. At the paper's epsilon it hardly matters: nearly every element meets the bound, and the shift is
            close to epsilon * |weight| * sign(moment). In the embedded pre-training, delta 0.005, 0.05 and 0.5 gave
            norm ratios of 0.0006, 0.0009 and 0.0010, with 76, 96 and 99.6 % clipped. The size is chosen by epsilon.
        fixed_weight: Factor on the first moment where `adaptive` is false; the paper's 0.05.
        epsilon: Clipping margin as a share of each weight's magnitude; the paper's 0.001.
        norm: Norms over the whole named module ("encoder"), or tensor by tensor ("tensor").

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
    ) -> None:
        super().__init__()
        if isinstance(modules, str) or not modules or not all(isinstance(m, str) and m for m in modules):
            raise UserError(f"modules is {modules!r}: a list of dotted submodule names is needed, at least one.")
        for name, value in (("delta", delta), ("fixed_weight", fixed_weight), ("epsilon", epsilon)):
            if not 0 < value < float("inf"):
                raise UserError(f"{name} is {value!r}: a finite number above 0 is needed.")
        if norm not in ("encoder", "tensor"):
            raise UserError(f"norm is {norm!r}: 'encoder' or 'tensor' is allowed.")
        self.modules = tuple(modules)
        self.adaptive = adaptive
        self.delta = delta
        self.fixed_weight = fixed_weight
        self.epsilon = epsilon
        self.norm: Norm = norm
        self._groups: list[list[Parameter]] = []
        self._perturbations: dict[Parameter, Tensor] = {}  # of this optimizer step; empty before its first micro-batch
        self._snapshots: dict[Parameter, Tensor] = {}  # of the parameters that are shifted right now
        self._room: dict[Parameter, tuple[Tensor, Tensor]] = {}  # in which both of these lie, step after step
        self._handles: list[RemovableHandle] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the parameters and refuses what cannot work.

        Raises:
            MisconfigurationException: If a name is unknown, no optimizer trains the modules, the strategy
                shards parameters, or their precision is too low to hold the perturbation.
        """
        self._detach()
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise MisconfigurationException(
                f"WeightPerturbation cannot run under {type(trainer.strategy).__name__}: it shards weights "
                "and moments, and no rank sees their norms. Use a single device or 'ddp'."
            )
        seen: set[Parameter] = set()
        for name in self.modules:
            parameters = list(submodule(pl_module, name, "WeightPerturbation").parameters())
            if not parameters:
                raise MisconfigurationException(
                    f"WeightPerturbation's modules names {name!r}, which has no parameters."
                )
            group = [p for p in parameters if p not in seen]
            self._groups.append(group)
            seen.update(group)
            for dtype in {p.dtype for p in group if p.requires_grad}:
                # Below a quarter of the spacing at 1, theta + epsilon * |theta| rounds back to theta.
                if self.epsilon < torch.finfo(dtype).eps / 4:
                    raise MisconfigurationException(
                        f"WeightPerturbation's epsilon={self.epsilon} is lost in rounding: the weights of "
                        f"{name!r} are {dtype}. Use precision '32-true', 'bf16-mixed' or '16-mixed'."
                    )
        trainable = {p for p in seen if p.requires_grad}
        if not trainable:
            rank_zero_warn(f"WeightPerturbation has nothing to perturb: {list(self.modules)} are frozen.")
        elif trainable.isdisjoint(p for optimizer in trainer.optimizers for p in _optimized(optimizer)):
            raise MisconfigurationException(
                f"No optimizer trains any parameter of WeightPerturbation's modules {list(self.modules)}."
            )
        self._handles = [o.register_step_post_hook(self._check_step) for o in trainer.optimizers]
        hook = partial(self._clean_state_dict)  # torch sets an attribute on it, which a bound method refuses
        self._handles.append(pl_module.register_state_dict_post_hook(hook))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Takes the snapshot and shifts the weights."""
        self._restore()
        moments = self._moments(trainer)
        if not moments:
            return
        new = self._perturbations.keys() != moments.keys()
        if new:
            self._compute(trainer, moments)
        parameters: list[Tensor] = list(moments)
        snapshots = {p: self._room[p][1] for p in moments}
        torch._foreach_copy_(list(snapshots.values()), parameters)
        self._snapshots = snapshots  # before the shift: an interrupt in the middle of it is undone too
        perturbations = [self._perturbations[p] for p in moments]
        torch._foreach_add_(parameters, perturbations)
        if new and trainer._logger_connector.should_update_logs:
            norm_ratio, clipped_share = statistics(list(snapshots.values()), perturbations, self.epsilon)
            pl_module.log_dict(
                {"perturbation/norm_ratio": norm_ratio, "perturbation/clipped_share": clipped_share},
                on_step=True,
                on_epoch=False,
            )

    def _moments(self, trainer: Trainer) -> dict[Parameter, Tensor]:
        """The parameters that can be shifted now, with their first moments."""
        return {
            p: moment
            for group in self._groups
            for p in group
            if p.requires_grad and (moment := _first_moment(p, trainer.optimizers)) is not None
        }

    def _compute(self, trainer: Trainer, moments: Mapping[Parameter, Tensor]) -> None:
        for p in moments:
            if p not in self._room:
                self._room[p] = torch.empty_like(p), torch.empty_like(p)
        for group in self._groups:
            shifted = [p for p in group if p in moments]
            room = [self._room[p][0] for p in shifted]
            perturbation(
                shifted,
                [moments[p] for p in shifted],
                adaptive=self.adaptive,
                delta=self.delta,
                fixed_weight=self.fixed_weight,
                epsilon=self.epsilon,
                norm=self.norm,
                out=room,
                scratch=[self._room[p][1] for p in shifted],  # the snapshot's, which is taken afterwards
            )
            self.turn(trainer, room)
        self._perturbations = {p: self._room[p][0] for p in moments}

    def turn(self, trainer: Trainer, perturbations: Sequence[Tensor]) -> None:
        """Where a relative of this callback gives a module's perturbations another direction, in place."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back: earlier, autograd would find them changed under its graph."""
        self._restore()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Puts the weights back where no backward ran (`training_step` returned None)."""
        self._restore()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Puts the weights back where neither a backward nor an optimizer step ran (accumulation)."""
        self._restore()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back where the module's `on_train_batch_start` ended the epoch."""
        self._restore()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back, whatever came before."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the weights back; Lightning calls no teardown after an exception."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts the weights back, takes the hooks off and frees the snapshots."""
        self._detach()

    @torch.no_grad()
    def _restore(self) -> None:
        if self._snapshots:
            torch._foreach_copy_(list(self._snapshots), list(self._snapshots.values()))
            self._snapshots = {}

    def _detach(self) -> None:
        self._restore()
        for handle in self._handles:
            handle.remove()
        self._handles, self._groups, self._perturbations, self._room = [], [], {}, {}

    def _clean_state_dict(self, module: Module, state_dict: dict[str, Any], prefix: str, metadata: object) -> None:
        # Lightning reads the state_dict before its on_save_checkpoint hooks, weights-only files skip those,
        # and live weights must not change between forward and backward: snapshots stand in for them here.
        if not self._snapshots:
            return
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if parameter in self._snapshots and prefix + name in state_dict:
                state_dict[prefix + name] = self._snapshots[parameter].clone()

    def _check_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self._snapshots.keys().isdisjoint(_optimized(optimizer)):
            raise MisconfigurationException(
                f"{type(optimizer).__name__} stepped while WeightPerturbation had its weights shifted: this "
                "update would be lost. In manual optimization call self.manual_backward(loss), and step the "
                "optimizers that self.optimizers() returns."
            )
        self._perturbations = {}
        mine = {p for group in self._groups for p in group}
        updated = [p for p in _optimized(optimizer) if p in mine and p.grad is not None]
        if updated and all(_first_moment(p, [optimizer]) is None for p in updated):
            raise MisconfigurationException(
                f"WeightPerturbation reads the first moment 'exp_avg' of the optimizer that trains "
                f"{list(self.modules)}, but {type(optimizer).__name__} keeps none. "
                "Use Adam, AdamW, NAdam or RAdam."
            )


def _optimized(optimizer: Optimizer) -> list[Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _first_moment(parameter: Parameter, optimizers: Sequence[Optimizer]) -> Tensor | None:
    for optimizer in optimizers:
        if parameter in optimizer.state:  # a look-up alone would make an entry
            moment: Tensor | None = optimizer.state[parameter].get("exp_avg")
            return moment
    return None
