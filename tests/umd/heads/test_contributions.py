"""What a modality alone gives to the true answer: told from synthetic labels that one modality decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from umd.encoders import Pooled
from umd.heads.pair_scorer import PairScorer
from umd.heads.split_head import Contribution, SplitHead
from umd.losses.answering import answer_loss
from umd.losses.classification import classification_loss
from umd.losses.ranking import ranking_loss

WIDTH, CLASSES, SAMPLES = 32, 20, 512

Modality = Literal["language", "vision"]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def rho_language(contributions: dict[str, Tensor]) -> float:
    return float(contributions["language"].sum() / contributions["vision"].sum())


def fit(module: nn.Module, losses: Iterator[Tensor]) -> None:
    """Two hundred steps; each loss is computed after the step before it."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def prototypes(numbers: Tensor) -> Tensor:
    """Features of so many samples, scattered around one direction for each class; bounded as poolers' are."""
    return (torch.randn(CLASSES, WIDTH)[numbers] + 0.3 * torch.randn(len(numbers), WIDTH)).tanh()


@pytest.mark.parametrize("loss", [answer_loss, classification_loss])
@pytest.mark.parametrize("decides", ["language", "vision"])
def test_masked_head_tells_which_modality_decides_and_last_layer_does_not(
    decides: Modality, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    numbers = {"language": torch.randint(CLASSES, (SAMPLES,)), "vision": torch.randint(CLASSES, (SAMPLES,))}
    pooled = Pooled(prototypes(numbers["language"]), prototypes(numbers["vision"]))
    head, labels = SplitHead(WIDTH, CLASSES), numbers[decides]
    fit(head, (loss(head(pooled), labels) for _ in range(200)))
    assert (head(pooled).argmax(1) == labels).all()
    measured = rho_language(head.contributions(pooled, labels))
    assert measured >= 3 if decides == "language" else measured <= 1 / 3
    # Chance for both: that layer never saw what it is applied to.
    assert 0.8 <= rho_language(head.contributions(pooled, labels, "last_layer")) <= 1.25


@pytest.mark.parametrize("decides", ["language", "vision"])
def test_the_pair_scorer_tells_which_modality_decides(decides: Modality) -> None:
    candidates = 8
    # The true pair's feature is shifted in the deciding modality alone.
    features = {name: torch.randn(SAMPLES, candidates, WIDTH) for name in ("language", "vision")}
    features[decides][:, 0] += torch.randn(WIDTH)
    pooled = Pooled(*(features[name].flatten(0, 1).tanh() for name in ("language", "vision")))
    scorer = PairScorer(WIDTH)
    fit(scorer, (ranking_loss(scorer(pooled).reshape(-1, candidates)) for _ in range(200)))
    measured = rho_language(scorer.contributions(pooled, candidates))
    assert measured >= 3 if decides == "language" else measured <= 1 / 3


class Dropping(SplitHead):
    """A head with dropout, and a part that is frozen in evaluation mode."""

    def __init__(self) -> None:
        super().__init__(WIDTH, CLASSES)
        self.hidden.append(nn.Dropout(0.5))
        self.hidden[1].eval()


@pytest.mark.parametrize("method", ["masked_head", "last_layer"])
def test_a_look_at_contributions_draws_no_dropout_and_leaves_every_mode(method: Contribution) -> None:
    head, pooled = Dropping(), Pooled(torch.randn(8, WIDTH), torch.randn(8, WIDTH))
    labels = torch.arange(8)
    modes = [part.training for part in head.modules()]
    before = torch.get_rng_state()
    first, second = (head.contributions(pooled, labels, method) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [part.training for part in head.modules()] == modes


def test_under_autocast_a_look_at_contributions_changes_no_gradient() -> None:
    """Also before the forward: torch 2.6 to 2.9 would train with converted weights that have no gradient."""
    pooled, labels = Pooled(torch.randn(8, WIDTH), torch.randn(8, WIDTH)), torch.arange(8)
    gradients, remembered = [], []
    for look in (False, True):
        torch.manual_seed(1)
        head = SplitHead(WIDTH, CLASSES)
        head.last.register_forward_pre_hook(
            lambda *_: remembered.append((torch.is_grad_enabled(), torch.is_autocast_cache_enabled()))
        )
        with torch.autocast("cpu", torch.bfloat16):
            if look:
                head.contributions(pooled, labels)
            loss = answer_loss(head(pooled), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({name: parameter.grad for name, parameter in head.named_parameters()})
    without, with_look = gradients
    for name, gradient in without.items():
        again = with_look[name]
        assert gradient is not None
        assert again is not None
        assert torch.equal(gradient, again), name
    # What makes it so, told on a torch whose autocast would not do it anyway: nothing converted is kept.
    assert all(gradient == cache for gradient, cache in remembered)
    assert torch.is_autocast_cache_enabled()
