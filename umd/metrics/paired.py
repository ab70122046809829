"""Whether one model is better than another on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd.metrics.images import numbered
from umd.metrics.intervals import image_interval, mean_interval

Answers = NDArray[np.bool_]


def mcnemar(one: Sequence[bool] | Answers, other: Sequence[bool] | Answers) -> float:
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
    # comb(coins, k) from the one before it: of tens of thousands of coins each by itself would take minutes.
    tail = ways = 1
    for k in range(min(only_one, only_other)):
        ways = ways * (coins - k) // (k + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**coins))


def sign_flip_test(gains: Any, images: Any = None) -> float:  # noqa: ANN401 - whatever numpy reads as a vector
    """Exact two-sided sign-flip (paired permutation) test: is the sum of the gains as large by chance?

    If two models are equally good, the gain on any image might as well have been the other one's. So the sign of
    each image's summed gain is a fair coin, all questions of the image together, and the p-value is the share of
    the 2^C outcomes of these coins whose sum is at least as far from 0 as the one that was seen. Gains are whole
    numbers, so the distribution over all outcomes is computed, by convolution, not sampled: there is no seed. With
    one question an image and gains of -1, 0 and 1 this is McNemar's exact test.

    Args:
        gains: (N,) whole numbers: by how many more of its trainings the first model is right, by question.
        images: (N,), what names the image of each question; None: every question stands for itself.

    Returns:
        The p-value; 1 where no image is answered differently. The time that it takes grows with the number of
        images that tell, times the sum of their gains.

    Raises:
        ValueError: gains that are not whole numbers, or not one image for each.
    """
    numbers = np.asarray(gains)
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"gains: must be whole numbers, got {numbers.dtype}")
    places, _ = numbered(np.arange(len(numbers)) if images is None else images)
    if numbers.ndim != 1 or places.shape != numbers.shape:
        raise ValueError(f"gains and images: vectors of one length are needed, got {numbers.shape}, {places.shape}")
    sums = np.bincount(places, weights=numbers).astype(np.int64)
    observed = abs(int(sums.sum()))
    steps = np.sort(np.abs(sums[sums != 0]))
    unit = gcd(*map(int, steps)) if len(steps) else 1
    # chances[k]: that the coins so far sum up to k - reach.
    chances, reach = np.ones(1), 0
    for step in map(int, steps // unit):
        wider = np.zeros(len(chances) + 2 * step)
        wider[: len(chances)] += chances / 2
        wider[2 * step :] += chances / 2
        chances, reach = wider, reach + step
    far = np.abs(np.arange(-reach, reach + 1)) >= observed // unit
    return min(1.0, float(chances[far].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of several p-values, in their order: of those below a level, any is wrong at that level."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


@dataclass(frozen=True)
class Comparison:
    """Two models on the same test questions, each trained under one seed or several.

    The intervals and tests ask how the difference would turn out on other questions, or images, of the same kind,
    for these trainings; how much another seed would change is what the deviation over seeds says.

    Attributes:
        difference: first minus second, mean over seeds, percentage points.
        low: lower end of its 95 % paired bootstrap interval over questions.
        high: its upper end.
        p: exact McNemar test over questions, one value a seed; nothing where they do not have the same number.
        image_low: lower end of the 95 % paired bootstrap interval over images; None where images are not known.
        image_high: its upper end.
        question_p: exact sign-flip test over questions of all seeds together; for one seed that is McNemar's.
        image_p: exact sign-flip test over images of all seeds together; None where images are not known.
    """

    difference: float
    low: float
    high: float
    p: tuple[float, ...]
    image_low: float | None
    image_high: float | None
    question_p: float
    image_p: float | None


def compare(one: Answers, other: Answers, images: Any = None) -> Comparison:  # noqa: ANN401 - see `sign_flip_test`
    """Whether the first model is better than the second.

    Args:
        one: (S, N) whether the first model is right, by seed and question.
        other: (T, N) the same of the second model, the questions in the same order.
        images: (N,), what names the image of each question; None where that is not known.

    Raises:
        ValueError: not the same number of questions.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"answers: must be (S, N) and (T, N), got {one.shape} and {other.shape}")
    gained = one.mean(axis=0) - other.mean(axis=0)
    # The same times S * T: whole numbers, whatever the numbers of seeds.
    gains = len(other) * one.sum(axis=0, dtype=np.int64) - len(one) * other.sum(axis=0, dtype=np.int64)
    low, high = mean_interval(gained)
    image_low, image_high = (None, None) if images is None else image_interval(gained, images)
    return Comparison(
        difference=100 * float(gained.mean()),
        low=low,
        high=high,
        p=tuple(mcnemar(a, b) for a, b in zip(one, other, strict=True)) if len(one) == len(other) else (),
        image_low=image_low,
        image_high=image_high,
        question_p=sign_flip_test(gains),
        image_p=None if images is None else sign_flip_test(gains, images),
    )


def pair_rows(names: tuple[str, str], one: Answers, other: Answers, images: Any, counted: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """The rows of a table of pairs: one over questions, and one over images where they are known.

    Args:
        names: of the two models.
        one: (S, N) whether the first model is right, by seed and question.
        other: (T, N) the same of the second model, the questions in the same order.
        images: (N,), what names the image of each question; None where that is not known.
        counted: what the questions are called.

    Returns:
        Rows with `one`, `other`, `samples`, `difference` (percentage points, mean over seeds), `over`, `low`, `high`
        (95 % bootstrap interval) and `p` (exact sign-flip test; over questions and for one seed that is McNemar's).
    """
    found = compare(one, other, images)
    pair = {"one": names[0], "other": names[1], "samples": one.shape[1], "difference": found.difference}
    rows = [pair | {"over": counted, "low": found.low, "high": found.high, "p": found.question_p}]
    if images is not None:
        rows.append(pair | {"over": "images", "low": found.image_low, "high": found.image_high, "p": found.image_p})
    return rows


def corrected(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `pair_rows` as a table with `p_holm`: `p`, corrected by Holm for the number of pairs."""
    table = pd.DataFrame(list(rows))
    if len(table):
        table["p_holm"] = table.groupby("over")["p"].transform(lambda values: holm(values.tolist()))
    return table
