"""OGM-GE and AGM on the small model of sound and smell that GM-Coord is tested on."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from callbacks import AdaptiveModulation, GradientModulation, ModalityCoordination
from callbacks.adaptive_modulation import adaptive_coefficients
from tests.callbacks.test_modality_coordination import Gradients, Peek, TwoTowers, fit
from umd.files import UserError

Precision = Literal["32-true", "bf16-mixed"]
WAYS: list[tuple[int, Precision]] = [(1, "32-true"), (2, "32-true"), (1, "bf16-mixed"), (2, "bf16-mixed")]
TOWERS = {"sound": ("sound.weight", "sound.bias"), "smell": ("smell.weight",)}


def factors(peek: Peek, seen: list[Gradients], step: int) -> dict[str, float]:
    """What each tower's gradients were multiplied with; that of the head must be as it was."""
    before, after = peek.raw[step], seen[step]
    assert torch.equal(before["head.weight"], after["head.weight"])
    found = {}
    for tower, names in TOWERS.items():
        one, two = (torch.cat([kept[name].flatten() for name in names]).double() for kept in (before, after))
        found[tower] = float(one @ two / (one @ one))
        torch.testing.assert_close(two, found[tower] * one, rtol=1e-5, atol=1e-9)
    return found


def untouched(peek: Peek, module: TwoTowers) -> bool:
    pairs = zip(peek.raw, module.seen, strict=True)
    return all(torch.equal(before[name], after[name]) for before, after in pairs for name in before)


def sums(peek: Peek, step: int) -> dict[str, float]:
    return {tower: peek.logged[step][f"coordination/contribution_{tower}"] for tower in TOWERS}


@pytest.mark.parametrize(("accumulate", "precision"), WAYS)
def test_ogm_slows_the_modality_with_the_larger_sum_of_probabilities(accumulate: int, precision: Precision) -> None:
    module, ogm = TwoTowers(), GradientModulation(alpha=0.8, enhancement=False)
    peek = fit(module, ogm, batch=4, accumulate=accumulate, precision=precision)
    assert len(module.seen) == 4 // accumulate
    for step in range(len(module.seen)):
        told = sums(peek, (step + 1) * accumulate - 1)
        rho = {"sound": told["sound"] / told["smell"], "smell": told["smell"] / told["sound"]}
        expected = {u: 1 - math.tanh(0.8 * rho[u]) if rho[u] > 1 else 1.0 for u in rho}
        assert factors(peek, module.seen, step) == pytest.approx(expected, rel=1e-4)


def test_enhancement_is_for_both_modalities_at_every_step() -> None:
    one, two = TwoTowers(), TwoTowers()
    fit(one, GradientModulation(alpha=0.8, seed=3))
    fit(two, ModalityCoordination(beta=0.8, noise="both", seed=3))
    for first, second in zip(one.seen, two.seen, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_outside_of_its_epochs_nothing_is_touched() -> None:
    module = TwoTowers()
    peek = fit(module, GradientModulation(first_epoch=1))
    assert all(
        torch.equal(one[name], two[name]) for one, two in zip(peek.raw, module.seen, strict=True) for name in one
    )
    with pytest.raises(UserError, match="epochs 2 to 1"):
        GradientModulation(first_epoch=2, last_epoch=1)
    with pytest.raises(UserError, match="alpha is 0"):
        GradientModulation(alpha=0)


def test_agms_coefficient() -> None:
    scores = {"one": torch.tensor(math.log(0.6)), "two": torch.tensor(math.log(0.2))}
    means = {"one": torch.tensor(math.log(0.4)), "two": torch.tensor(math.log(0.4))}
    kappa = adaptive_coefficients(scores, means, alpha=0.5)
    assert float(kappa["one"]) == pytest.approx(math.exp(-0.5 * (3 - 1)))
    assert float(kappa["two"]) == pytest.approx(math.exp(-0.5 * (1 / 3 - 1)))
    assert [float(k) for k in adaptive_coefficients(scores, scores, 2.0).values()] == [1.0, 1.0]
    with pytest.raises(ValueError, match="two modalities are compared, not 1"):
        adaptive_coefficients({"one": scores["one"]}, means, 1.0)


@pytest.mark.parametrize(("accumulate", "precision"), WAYS)
def test_agm_compares_each_step_with_the_mean_so_far(accumulate: int, precision: Precision) -> None:
    module, agm = TwoTowers(), AdaptiveModulation(alpha=2.0)
    peek = fit(module, agm, batch=2, accumulate=accumulate, precision=precision)
    scores: list[dict[str, float]] = []
    for step in range(len(module.seen)):
        scores.append({u: math.log(c) for u, c in sums(peek, (step + 1) * accumulate - 1).items()})
        mean = {u: sum(one[u] for one in scores) / len(scores) for u in TOWERS}
        expected = {
            u: math.exp(-2.0 * (math.exp(scores[-1][u] - scores[-1][v]) - math.exp(mean[u] - mean[v])))
            for u, v in (("sound", "smell"), ("smell", "sound"))
        }
        assert factors(peek, module.seen, step) == pytest.approx(expected, rel=1e-4)
    again = AdaptiveModulation(alpha=2.0)
    again.load_state_dict(agm.state_dict())
    assert again.steps == len(module.seen) == 8 // accumulate
    assert {u: float(mean) for u, mean in again.means.items()} == pytest.approx(mean)


def test_a_modality_that_contributes_nothing_leaves_the_step_alone() -> None:
    class Silent(TwoTowers):
        def modality_contributions(self) -> dict[str, torch.Tensor]:
            return {**self.sums, "smell": torch.zeros(())}

    module, agm = Silent(), AdaptiveModulation()
    peek = fit(module, agm)
    assert agm.steps == 0
    assert all(
        torch.equal(one[name], two[name]) for one, two in zip(peek.raw, module.seen, strict=True) for name in one
    )
    with pytest.raises(UserError, match="alpha is -1"):
        AdaptiveModulation(-1)
