"""Intervals and tests equal scipy's and statsmodels'."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from umd.metrics.intervals import bootstrap_interval, counted_interval, image_interval, image_intervals, mean_interval
from umd.metrics.paired import holm, mcnemar, sign_flip_test

RANDOM = np.random.default_rng(0)
RESAMPLES = 20_000


def percentile(statistic: object, *columns: np.ndarray) -> tuple[float, float]:
    """scipy's percentile bootstrap of 95 %, in per cent."""
    found = stats.bootstrap(
        columns, statistic, method="percentile", n_resamples=RESAMPLES, paired=True, vectorized=False, rng=1
    ).confidence_interval
    return 100 * float(found.low), 100 * float(found.high)


def test_intervals_over_questions_are_scipys() -> None:
    correct = RANDOM.random(180) < 0.62
    ends = bootstrap_interval(correct, resamples=RESAMPLES)
    assert ends == pytest.approx(percentile(np.mean, correct.astype(float)), abs=0.7)
    binomial = stats.binom(len(correct), correct.mean())
    assert ends == pytest.approx([100 * binomial.ppf(tail) / len(correct) for tail in (0.025, 0.975)], abs=0.6)
    marks = RANDOM.choice([0, 1 / 3, 0.5, 2 / 3, 1], 180)
    expected = percentile(np.mean, marks)
    assert counted_interval(marks, resamples=RESAMPLES) == pytest.approx(expected, abs=0.4)
    assert mean_interval(marks, resamples=RESAMPLES) == pytest.approx(expected, abs=0.4)


def test_intervals_over_images_are_scipys() -> None:
    images = RANDOM.integers(0, 60, 200)
    values = np.clip(RANDOM.normal(0.5, 0.3, 200) + 0.2 * (images % 3 - 1), 0, 1)
    names = np.unique(images)
    sums = np.array([values[images == name].sum() for name in names])
    sizes = np.array([(images == name).sum() for name in names])
    expected = percentile(lambda total, size: total.sum() / size.sum(), sums, sizes.astype(float))
    assert image_interval(values, images, resamples=RESAMPLES) == pytest.approx(expected, abs=0.4)


def test_intervals_of_several_values_are_those_of_each() -> None:
    images, values = RANDOM.integers(0, 40, 90), RANDOM.random((3, 90))
    several = image_intervals(values, images)
    for row, ends in zip(values, several, strict=True):
        assert image_interval(row, images) == pytest.approx(ends, abs=1e-9)


def test_mcnemars_test_is_scipys_and_statsmodels() -> None:
    table = pytest.importorskip("statsmodels.stats.contingency_tables")
    for size, first, second in ((30, 0.5, 0.5), (200, 0.7, 0.5), (451, 0.62, 0.6), (40_000, 0.5, 0.502)):
        one, other = RANDOM.random(size) < first, RANDOM.random(size) < second
        only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
        p = mcnemar(one, other)
        assert p == pytest.approx(stats.binomtest(only_one, only_one + only_other).pvalue, rel=1e-9)
        if size < 1000:
            found = table.mcnemar([[0, only_one], [only_other, 0]], exact=True)
            assert p == pytest.approx(min(1, found.pvalue), rel=1e-9)


def test_the_sign_flip_test_is_scipys_permutation_test() -> None:
    for seed in range(5):
        gains = np.random.default_rng(seed).integers(-3, 4, 11)
        found = stats.permutation_test(
            (gains,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert sign_flip_test(gains) == pytest.approx(min(1, found.pvalue), rel=1e-9)


def test_holms_correction_is_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for size in (1, 2, 6, 15):
        p = RANDOM.random(size) ** 3
        assert holm(p.tolist()) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist())
