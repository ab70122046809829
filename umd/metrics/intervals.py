"""How sure a measured accuracy is, and whether one model is better than another on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray


def bootstrap_interval(
    correct: Any,  # noqa: ANN401 - whatever numpy reads as a vector
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of an accuracy over questions.

    Resampling N answers of which k are correct, with replacement, makes the number of correct ones
    Binomial(N, k / N): that is drawn directly, the same distribution without building the resamples.
    Where all answers are right, or all wrong, the interval is a point: a bootstrap cannot see further.

    Args:
        correct: (N,) bool, or 0 and 1; N is at least 1. An array, a tensor or a sequence.
        confidence: the probability that the interval is meant to hold the accuracy, between 0 and 1.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        The lower and the upper end, in per cent.

    Raises:
        ValueError: no question, values other than 0 and 1, or an argument out of its range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: must lie between 0 and 1, got {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples: must be at least 1, got {resamples}")
    answers = np.asarray(correct.cpu() if hasattr(correct, "cpu") else correct)
    if answers.ndim != 1 or len(answers) == 0:
        raise ValueError(f"correct: a vector of at least one question is needed, got {answers.shape}")
    if not ((answers == 0) | (answers == 1)).all():
        raise ValueError("correct: only 0 and 1 are allowed")
    questions = len(answers)
    share = int(np.count_nonzero(answers)) / questions
    hits = np.random.default_rng(seed).binomial(questions, share, size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(100 * hits / questions, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(
    values: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of N values, in per cent.

    For what questions share over several seeds (the share of seeds that answer a question correctly), and for
    paired differences between two models on the same questions.

    Args:
        values: (N,), each question's value; N is at least 1.
        confidence: as in `bootstrap_interval`, like all that follow.
        resamples: number of resamples.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    drawn = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(100 * np.array(drawn), [tail, 1 - tail])
    return float(low), float(high)


def mcnemar(one: Sequence[bool] | NDArray[np.bool_], other: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar test: could two models that answer the same questions be equally good?

    Only questions on which exactly one of them is right tell; under the hypothesis each is a fair coin.

    Args:
        one: (N,) whether the first model is right, by question.
        other: (N,) the same of the second model, in the same order.

    Returns:
        The p-value; 1 where the models are right on the same questions.

    Raises:
        ValueError: not the same number of questions.
    """
    first, second = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"the models answered {len(first)} and {len(second)} questions; they must be the same ones")
    only_one, only_other = int((first & ~second).sum()), int((second & ~first).sum())
    coins = only_one + only_other
    tail = sum(comb(coins, k) for k in range(min(only_one, only_other) + 1))
    return min(1.0, float(2 * tail / 2**coins))
