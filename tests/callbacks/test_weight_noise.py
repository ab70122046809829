"""Gaussian weight noise: GGP's perturbation in all but its direction."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks import WeightNoise, WeightPerturbation
from callbacks.weight_noise import noise_like
from tests.callbacks.test_weight_perturbation import Inside, Recorder, Regressor, fit, same


def test_noise_has_the_norm_of_each_tensor_and_no_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    r = [torch.randn(200, 300, generator=generator), torch.rand(50, generator=generator), torch.zeros(4)]
    noise = noise_like(r, seed=1)
    for one, other in zip(noise, r, strict=True):
        assert float(one.norm()) == pytest.approx(float(other.norm()), rel=1e-5)
    assert abs(float(torch.cosine_similarity(noise[0].flatten(), r[0].flatten(), 0))) < 4 / 60_000**0.5
    z = noise[0] / noise[0].std()
    assert [(z.abs() < width).float().mean().item() for width in (1, 2)] == pytest.approx([0.6827, 0.9545], abs=0.01)
    assert same_list(noise_like(r, 1), noise) and not same_list(noise_like(r, 2), noise)


def same_list(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, two, strict=True))


class Norms(Callback):
    """The size of the shift, as logged at each batch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.found.append(float(trainer.callback_metrics.get("perturbation/norm_ratio", -1)))


@pytest.mark.parametrize(("accumulate", "precision"), [(1, "32-true"), (2, "32-true"), (1, "bf16-mixed")])
def test_weights_move_by_as_much_as_under_ggp_and_come_back(
    accumulate: int, precision: Literal["32-true", "bf16-mixed"]
) -> None:
    """Up to the first shifted step both trainings are the same, and so is the size of that shift."""
    sizes = []
    for callback in (WeightPerturbation(["trunk"]), WeightNoise(["trunk"])):
        norms, recorder, inside = Norms(), Recorder(), Inside()
        fit(Regressor(), [recorder, callback, inside, norms], 4, accumulate=accumulate, precision=precision)
        sizes.append(norms.found)
        shifted = [not same(one, two) for one, two in zip(recorder.before, inside.during, strict=True)]
        assert shifted == [number >= accumulate for number in range(4)]
        after, before = recorder.after[accumulate], recorder.before[accumulate]
        moved = max(float((after[name] - before[name]).abs().max()) for name in after)
        assert moved == 0 if accumulate == 2 else moved < 0.1  # no update yet, and no shift left
    assert sizes[0][accumulate] > 0
    assert sizes[0][accumulate] == pytest.approx(sizes[1][accumulate], rel=1e-5)


def test_micro_batches_of_a_step_see_one_noise() -> None:
    recorder, inside = Recorder(), Inside()
    fit(Regressor(), [recorder, WeightNoise(["trunk"]), inside], 6, accumulate=2)
    assert same(inside.during[2], inside.during[3]) and not same(inside.during[3], inside.during[4])
