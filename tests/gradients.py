"""What trainings are compared by; not weights, since Adam's first steps are as long for rounding errors as for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer


class Gradients(Callback):
    """The loss of each step, and the gradients that the callbacks behind this one and the optimizer get."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seen: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.seen.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def assert_same_gradients(
    found: Sequence[Mapping[str, Tensor]], wanted: Sequence[Mapping[str, Tensor]], tolerance: float = 1e-4
) -> None:
    """Each parameter's, step by step: the difference's norm beside its own, or beside a thousandth of all of them's."""
    assert len(found) == len(wanted) > 0
    for step, (ones, others) in enumerate(zip(found, wanted, strict=True)):
        assert ones.keys() == others.keys()
        whole = float(torch.stack([g.norm() for g in others.values()]).norm())
        for name, value in others.items():
            apart = float((ones[name] - value).norm()) / max(float(value.norm()), whole / 1000)
            assert apart < tolerance, f"step {step}, {name}: {apart:.1e} apart"
