"""Parameter groups and schedules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch.nn import Module, Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from umd.files import UserError

Schedule = Literal["linear", "cosine", "constant_with_warmup"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule. Defaults: MR-Pretrain's (method: UMD section 4.2).

    Attributes:
        lr: learning rate of the vision and text encoders.
        fusion_multiplier: the fusion and the poolers learn at lr times this.
        head_multiplier: decoders and heads learn at lr times this.
        weight_decay: on tensors of at least two dimensions; none on the others.
        betas: AdamW's two decay rates.
        eps: AdamW's epsilon.
        schedule: shape of the learning rate after the warm-up.
        warmup_ratio: share of all optimizer steps over which the rate rises linearly from 0.
    """

    lr: float = 1e-5
    fusion_multiplier: float = 5.0
    head_multiplier: float = 5.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    schedule: Schedule = "linear"
    warmup_ratio: float = 0.1

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        if self.schedule not in get_args(Schedule):
            raise UserError(f"schedule is '{self.schedule}'; allowed: {', '.join(get_args(Schedule))}")
        if not 0 <= self.warmup_ratio < 1:
            raise UserError(f"warmup_ratio is {self.warmup_ratio}; it must lie in [0, 1)")
        if self.lr <= 0:
            raise UserError(f"lr is {self.lr}; it must be positive")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: shown by the learning-rate monitor.
        parameters: which ones.
        multiplier: their rate is the configured one times this.
    """

    name: str
    parameters: Sequence[Parameter]
    multiplier: float = 1.0


def check_partition(module: Module, groups: Iterable[ParameterGroup]) -> None:
    """Raise ValueError unless each trainable parameter of `module` stands in exactly one group, by identity."""
    names = {id(parameter): name for name, parameter in module.named_parameters() if parameter.requires_grad}
    seen: set[int] = set()
    for group in groups:
        for parameter in group.parameters:
            if not parameter.requires_grad:
                continue
            if id(parameter) in seen:
                raise ValueError(f"{names.get(id(parameter), 'a parameter')} stands in two parameter groups")
            seen.add(id(parameter))
    forgotten = [name for key, name in names.items() if key not in seen]
    if forgotten:
        raise ValueError(f"in no parameter group: {', '.join(forgotten[:5])}")


def build_adamw(groups: Sequence[ParameterGroup], config: OptimizerConfig, fused: bool = True) -> AdamW:
    """AdamW over the groups' trainable parameters, each group cut by whether weight decay applies.

    Decay is decided by the number of dimensions, never by a name.

    Args:
        groups: what is trained.
        config: AdamW's settings.
        fused: on the CPU and on CUDA, take the fused implementation, several times faster; else PyTorch's own choice.
    """
    settings: list[dict[str, Any]] = []
    for group in groups:
        for suffix, decay, wanted in (("", config.weight_decay, True), ("/no_decay", 0.0, False)):
            chosen = [p for p in group.parameters if p.requires_grad and (p.ndim >= 2) == wanted]
            if chosen:
                settings.append(
                    {
                        "params": chosen,
                        "lr": config.lr * group.multiplier,
                        "weight_decay": decay,
                        "name": group.name + suffix,
                    }
                )
    if not settings:
        raise UserError("nothing to train: every parameter is frozen")
    known = all(p.device.type in ("cpu", "cuda") for setting in settings for p in setting["params"])
    return AdamW(settings, lr=config.lr, betas=config.betas, eps=config.eps, fused=(known and fused) or None)


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, steps: int) -> LRScheduler:
    """Warm-up, then decay, over `steps` optimizer steps."""
    schedule: LRScheduler = get_scheduler(
        config.schedule,
        optimizer,
        num_warmup_steps=round(config.warmup_ratio * steps),
        num_training_steps=steps,
    )
    return schedule
