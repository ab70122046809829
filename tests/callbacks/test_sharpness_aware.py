"""SAM and ASAM on a quadratic, where both passes can be written down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from callbacks import SharpnessAware
from callbacks.sharpness_aware import ascent
from umd.files import UserError

RHO, ETA, RATE = 0.3, 0.01, 0.1


class Quadratic(LightningModule):
    """loss = mean over x of (x . w)^2 / 2 + (x_0 b)^2 / 2: its gradient is linear in the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([0.25], dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.passes: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (x,) = batch
        self.passes.append(torch.cat([self.w, self.b]).detach().clone())
        return ((x @ self.w) ** 2 + (x[:, 0] * self.b) ** 2).mean() / 2

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=RATE)


def samples() -> Tensor:
    return torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def hessian(x: Tensor) -> Tensor:
    found = torch.zeros(4, 4, dtype=torch.float64)
    found[:3, :3] = x.T @ x / len(x)
    found[3, 3] = (x[:, 0] ** 2).mean()
    return found


def fit(module: LightningModule, callback: SharpnessAware, **settings: Any) -> Trainer:  # noqa: ANN401
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
    given = {"accelerator": "cpu", "devices": 1, "enable_model_summary": False, **quiet, **settings}
    trainer = Trainer(callbacks=[callback], **given)
    trainer.fit(module, DataLoader(TensorDataset(samples()), batch_size=4))
    return trainer


@pytest.mark.parametrize("adaptive", [False, True])
def test_each_step_is_that_of_the_papers(adaptive: bool) -> None:
    module = Quadratic()
    trainer = fit(module, SharpnessAware(RHO, adaptive, ETA))
    theta = torch.tensor([1.0, -2.0, 0.5, 0.25], dtype=torch.float64)
    for step, x in enumerate(torch.split(samples(), 4)):
        matrix = hessian(x)
        g = matrix @ theta
        scale = theta.abs() + ETA if adaptive else torch.ones(4)
        moved = theta + RHO * scale**2 * g / (scale * g).norm()
        torch.testing.assert_close(module.passes[2 * step], theta)
        torch.testing.assert_close(module.passes[2 * step + 1], moved)
        theta = theta - RATE * matrix @ moved
    torch.testing.assert_close(torch.cat([module.w, module.b]).detach(), theta)
    assert trainer.global_step == 3 and len(module.passes) == 6
    assert module.unused.item() == 1


def test_the_move_has_the_radius_that_is_asked_for_and_none_where_there_is_no_slope() -> None:
    w, g = [torch.randn(3, 4), torch.randn(5)], [torch.randn(3, 4), torch.randn(5)]
    assert float(torch.cat([e.flatten() for e in ascent(w, g, rho=0.7, eta=None)]).norm()) == pytest.approx(0.7)
    scaled = [e / (one.abs() + 0.1) for e, one in zip(ascent(w, g, rho=0.7, eta=0.1), w, strict=True)]
    assert float(torch.cat([e.flatten() for e in scaled]).norm()) == pytest.approx(0.7)
    assert not any(e.any() for e in ascent(w, [torch.zeros_like(one) for one in w], rho=1.0, eta=None))


@pytest.mark.parametrize("adaptive", [False, True])
def test_under_bf16_the_second_pass_is_a_radius_away_from_the_unmoved_weights(adaptive: bool) -> None:
    module = Quadratic()
    fit(module, SharpnessAware(RHO, adaptive, ETA), precision="bf16-mixed")
    assert len(module.passes) == 6
    for first, second in zip(module.passes[::2], module.passes[1::2], strict=True):
        scale = first.abs() + ETA if adaptive else torch.ones(4)
        assert float(((second - first) / scale).norm()) == pytest.approx(RHO, rel=1e-3)


def test_a_loss_that_is_not_finite_gets_no_second_pass() -> None:
    class Infinite(Quadratic):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * float("inf")

    module = Infinite()
    fit(module, SharpnessAware(RHO), max_steps=1)
    assert len(module.passes) == 1


def test_weights_are_put_back_when_the_second_pass_fails() -> None:
    class Failing(Quadratic):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            if len(self.passes) == 2:
                raise RuntimeError("broken")
            return loss

    module = Failing()
    before = module.w.detach().clone()
    with pytest.raises(RuntimeError, match="broken"):
        fit(module, SharpnessAware(RHO))
    assert torch.equal(module.w, before)


def test_what_has_no_second_pass_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="accumulate_grad_batches=1"):
        fit(Quadratic(), SharpnessAware(), accumulate_grad_batches=2)

    halves = MixedPrecision("16-mixed", "cpu")
    with pytest.raises(MisconfigurationException, match="not '16-mixed'"):
        fit(Quadratic(), SharpnessAware(), plugins=[halves])

    class Manual(Quadratic):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    with pytest.raises(MisconfigurationException, match="automatic optimization"):
        fit(Manual(), SharpnessAware())
    with pytest.raises(UserError, match="rho is 0"):
        SharpnessAware(0)
