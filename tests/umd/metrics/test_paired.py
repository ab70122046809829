"""Paired comparison, against closed forms and against going through every outcome."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from umd.metrics.images import numbered
from umd.metrics.intervals import image_interval, mean_interval
from umd.metrics.paired import compare, holm, mcnemar, sign_flip_test


def test_mcnemar_is_a_binomial_test_of_the_questions_that_tell() -> None:
    one = np.array([True] * 12 + [False] * 3 + [True] * 40 + [False] * 10)
    other = np.array([False] * 12 + [True] * 3 + [True] * 40 + [False] * 10)
    assert mcnemar(one, other) == pytest.approx(binomtest(3, 15, 0.5).pvalue)
    assert mcnemar(other, one) == mcnemar(one, other)
    assert mcnemar(one, one) == 1
    with pytest.raises(ValueError, match="the same"):
        mcnemar(one, other[:-1])


def test_without_shared_images_the_sign_flip_test_is_mcnemars() -> None:
    random = np.random.default_rng(0)
    for size in (1, 7, 60, 451):
        one, other = random.random((2, size)) < [[0.7], [0.55]]
        expected = pytest.approx(mcnemar(one, other), rel=1e-9)
        assert sign_flip_test(one.astype(int) - other) == expected
        assert sign_flip_test(one.astype(int) - other, random.permutation(size)) == expected


def test_the_sign_flip_test_goes_through_all_outcomes() -> None:
    random = np.random.default_rng(1)
    gains, images = random.integers(-3, 4, size=40), random.integers(9, size=40)
    sums = np.bincount(images, weights=gains)
    outcomes = np.array([np.dot(signs, sums) for signs in product((-1, 1), repeat=9)])
    expected = (np.abs(outcomes) >= abs(sums.sum())).mean()
    assert sign_flip_test(gains, images) == pytest.approx(expected, rel=1e-12)
    library = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(gains, images) == pytest.approx(library.pvalue, rel=1e-12)


def test_the_sign_flip_test_sees_the_image_not_the_number_of_its_questions() -> None:
    # One image of 20 questions is one coin, however often its questions are answered better.
    assert sign_flip_test([1] * 20, ["a"] * 20) == 1
    assert sign_flip_test([1] * 20) == pytest.approx(2 / 2**20)
    assert sign_flip_test([0] * 5, [1, 1, 2, 2, 3]) == 1
    assert sign_flip_test([1] * 451, np.arange(451) // 2) == pytest.approx(2 / 2**226)
    with pytest.raises(ValueError, match="whole numbers"):
        sign_flip_test([0.5, 1.0])


def test_under_the_hypothesis_p_values_hold_their_level_over_images() -> None:
    random = np.random.default_rng(2)
    images = np.repeat(np.arange(40), 6)
    over_images, over_questions = [], []
    for _ in range(300):
        better = random.random((2, 40)) < 0.5  # two models, equally good, each all right or all wrong on an image
        gains = better[0].astype(int)[images] - better[1][images]
        over_images.append(sign_flip_test(gains, images))
        over_questions.append(sign_flip_test(gains))
    # 300 trials at 5 % have a standard deviation of 1.3 points.
    assert np.mean(np.array(over_images) <= 0.05) <= 0.08
    assert np.mean(np.array(over_questions) <= 0.05) > 0.3


def test_holm_of_a_worked_example() -> None:
    # 4 * 0.005, 3 * 0.01, then 2 * 0.03, and 1 * 0.04, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_comparison_over_seeds() -> None:
    random = np.random.default_rng(3)
    one, other = random.random((3, 80)) < 0.7, random.random((3, 80)) < 0.6
    images = np.arange(80) // 4
    found = compare(one, other, images)
    gained = one.mean(axis=0) - other.mean(axis=0)
    assert found.difference == pytest.approx(100 * gained.mean())
    assert (found.low, found.high) == mean_interval(gained)
    assert (found.image_low, found.image_high) == image_interval(gained, images)
    assert found.p == tuple(mcnemar(a, b) for a, b in zip(one, other, strict=True))
    assert found.question_p == sign_flip_test(one.sum(0) - other.sum(0))
    assert found.image_p == sign_flip_test(one.sum(0) - other.sum(0), images)
    alone = compare(one[:1], other[:1])
    assert alone.question_p == pytest.approx(alone.p[0])
    assert alone.image_p is alone.image_low is None


def test_seeds_may_be_of_different_numbers() -> None:
    random = np.random.default_rng(4)
    one, other = random.random((2, 50)) < 0.7, random.random((3, 50)) < 0.6
    found = compare(one, other)
    assert found.p == ()
    assert found.difference == pytest.approx(100 * (one.mean() - other.mean()))
    assert found.question_p == pytest.approx(compare(np.tile(one, (3, 1)), np.tile(other, (2, 1))).question_p)
    with pytest.raises(ValueError, match=r"\(S, N\)"):
        compare(one, other[:, :-1])


def test_images_are_numbered_in_whatever_form_they_are_named() -> None:
    for names in (["b", "a", "b", "c"], [9, 8, 9, 1], [8, 9, 8, 1]):
        places, count = numbered(names)
        assert places.tolist() == [0, 1, 0, 2] and count == 3
