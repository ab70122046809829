"""How sure a measured accuracy is: bootstrap intervals over questions, and over the images that they share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from umd.metrics.images import drawn_images, numbered

# Resamples times images that are drawn at once for several values.
_DRAWN = 400_000


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


def counted_interval(
    values: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """`mean_interval` for many questions that have few different values, such as the words that answers share.

    How often each value is drawn among N is multinomial: that is drawn directly, the same distribution without
    building the resamples, as `bootstrap_interval` does for right and wrong. The draws are others than those of
    `mean_interval`, and so, a little, are the ends.

    Args:
        values: (N,), each question's value; N is at least 1.
        confidence: as in `bootstrap_interval`, like all that follow.
        resamples: number of resamples.
        seed: of the resampling.
    """
    different, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(100 * (drawn @ different) / len(values), [tail, 1 - tail])
    return float(low), float(high)


def image_interval(
    values: Any,  # noqa: ANN401 - whatever numpy reads as a vector
    images: Any,  # noqa: ANN401 - the same
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval over images (a cluster bootstrap) of the mean of N values, in per cent.

    Questions about one image are not independent: a model that reads an image well is right on many of them. So
    images are drawn, not questions. Of the C images, C are drawn with replacement; all questions of an image
    count as often as it was drawn; the mean is the sum of their values divided by their number, which differs
    between resamples. With one question an image this is the bootstrap over questions; where the m questions of
    each image are all answered alike it is wider than that one by the square root of m. With a single image the
    interval is a point: a bootstrap cannot see further.

    Args:
        values: (N,), each question's value: whether it is answered, the share of seeds that do, a paired
            difference. N is at least 1.
        images: (N,), what names the image of each question: numbers or texts.
        confidence: as in `bootstrap_interval`, like all that follow.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: no question, or not one image for each.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"values and images: vectors of one length are needed, got {numbers.shape}")
    (interval,) = image_intervals(numbers[None], images, confidence=confidence, resamples=resamples, seed=seed)
    return interval


def image_intervals(
    values: NDArray[np.float64],
    images: Any,  # noqa: ANN401 - whatever numpy reads as a vector
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """`image_interval` of several values a question, from the same drawing of images.

    Args:
        values: (K, N), K values of each question.
        images: as in `image_interval`, like all that follow.
        confidence: the same.
        resamples: the same.
        seed: the same.

    Returns:
        K intervals, each the one that `image_interval` finds for these values alone.

    Raises:
        ValueError: no question, or not one image for each.
    """
    places, count = numbered(images)
    if values.ndim != 2 or values.shape[1:] != places.shape or not len(places):
        raise ValueError(f"values and images: vectors of one length are needed, got {values.shape}, {places.shape}")
    sums = np.stack([np.bincount(places, weights=row) for row in values], axis=1)
    sizes = np.bincount(places).astype(np.float64)
    # Of many images few resamples at once: the drawing is the same, and takes a tenth of the memory.
    at_once = drawn_images(count, resamples, seed, max(1, _DRAWN // count) if len(values) > 1 else None)
    means = [drawn @ sums / (drawn @ sizes)[:, None] for drawn in at_once]
    tail = (1 - confidence) / 2
    ends = np.quantile(100 * np.concatenate(means), [tail, 1 - tail], axis=0)
    return [(float(low), float(high)) for low, high in ends.T]
