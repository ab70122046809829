"""The temperature against closed forms and a slow search."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from umd.metrics.temperature import RANGE, fitted_temperature, log_loss

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("logit", "accuracy"), [(2.0, 0.75), (-1.0, 0.25), (0.5, 0.9)])
def test_one_logit_becomes_the_share_that_is_right(logit: float, accuracy: float) -> None:
    right = np.arange(40) < 40 * accuracy
    found = fitted_temperature(lambda temperature: np.full(40, 1 / (1 + np.exp(-logit / temperature))), right)
    assert found == pytest.approx(logit / np.log(accuracy / (1 - accuracy)), rel=1e-3)


def test_a_softmax_has_the_least_loss_that_a_slow_search_finds() -> None:
    logits = RANDOM.normal(size=(300, 5)) * 4
    right = RANDOM.random(300) < 0.6

    def confidence(temperature: float) -> NDArray[np.float64]:
        parts = np.exp(logits / temperature)
        return np.asarray((parts / parts.sum(1, keepdims=True)).max(1))

    losses = {one: log_loss(confidence(one), right) for one in np.geomspace(*RANGE, 2000)}
    assert fitted_temperature(confidence, right) == pytest.approx(min(losses, key=losses.__getitem__), rel=5e-3)


@pytest.mark.parametrize("right", [np.ones(30, dtype=bool), np.zeros(30, dtype=bool), np.arange(9) < 5])
def test_where_too_little_is_known_it_is_one(right: NDArray[np.bool_]) -> None:
    assert fitted_temperature(lambda temperature: np.full(len(right), 0.7), right) == 1


def test_the_loss_is_that_of_what_came_true() -> None:
    assert log_loss(np.array([0.25, 0.25]), np.array([True, False])) == pytest.approx(-np.log([0.25, 0.75]).mean())
    assert np.isfinite(log_loss(np.array([1.0]), np.array([False])))
