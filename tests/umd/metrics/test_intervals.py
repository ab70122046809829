"""Intervals over seeds, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from umd.metrics.intervals import bootstrap_interval, mean_interval


def test_the_interval_of_a_mean_is_that_of_an_accuracy_where_values_are_0_and_1() -> None:
    correct = np.arange(400) % 4 == 0
    expected = bootstrap_interval(correct, resamples=20_000)
    assert mean_interval(correct.astype(float), resamples=20_000) == pytest.approx(expected, abs=0.3)


def test_the_interval_of_a_mean_has_the_normal_width() -> None:
    values = np.random.default_rng(1).normal(0.2, 0.5, size=2_000)
    low, high = mean_interval(values)
    half = 100 * 1.96 * values.std() / np.sqrt(2_000)
    assert (low, high) == pytest.approx((100 * values.mean() - half, 100 * values.mean() + half), abs=0.25)
