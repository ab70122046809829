"""One metric over several trainings that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from umd.metrics.intervals import bootstrap_interval, image_interval, mean_interval
from umd.metrics.paired import Answers


@dataclass(frozen=True)
class Measured:
    """One metric over seeds.

    Attributes:
        mean: over seeds, in per cent.
        std: over seeds (sample standard deviation, percentage points); None for a single seed.
        low: lower end of the 95 % bootstrap interval over questions (or samples, or queries).
        high: its upper end.
        count: questions, samples or queries.
        ceiling: the best that the answer vocabulary allows, in per cent; None where there is none.
        image_low: lower end of the 95 % bootstrap interval over images; None where it is not known.
        image_high: its upper end.
        images: how many; None where that is not known.
    """

    mean: float
    std: float | None
    low: float
    high: float
    count: int
    ceiling: float | None = None
    image_low: float | None = None
    image_high: float | None = None
    images: int | None = None


def measured(correct: Answers, images: Any = None, ceiling: float | None = None) -> Measured:  # noqa: ANN401
    """Accuracy from each seed's answers to the same questions.

    A question's value is the share of seeds that answer it, so the intervals are of the mean over these seeds.

    Args:
        correct: (S, N) whether a question is answered, by seed.
        images: (N,), what names the image of each question; None where that is not known.
        ceiling: the best that the answer vocabulary allows, in per cent.
    """
    shares, values = 100 * correct.mean(axis=1), correct.mean(axis=0)
    several = len(correct) > 1
    low, high = mean_interval(values) if several else bootstrap_interval(correct[0])
    image_low, image_high = (None, None) if images is None else image_interval(values, images)
    std = float(shares.std(ddof=1)) if several else None
    number = None if images is None else len(np.unique(np.asarray(images)))
    return Measured(float(shares.mean()), std, low, high, correct.shape[1], ceiling, image_low, image_high, number)


def reported(rows: Sequence[Mapping[str, Any]], value: str, count: str) -> Measured | None:
    """The same from the rows of the seeds' reports; None where one says that the metric is undefined.

    An interval's ends are the means of the seeds' own: for metrics whose samples are not at hand.

    Args:
        rows: a row a seed, of one metric.
        value: name of its column.
        count: name of the column of how many it is measured on.
    """
    if any(row[value] is None for row in rows):
        return None
    values = np.array([row[value] for row in rows])
    ends = ("interval_low", "interval_high", "image_interval_low", "image_interval_high")
    low, high, image_low, image_high = (_mean_of([row.get(end) for row in rows]) for end in ends)
    assert low is not None and high is not None  # a metric that is defined has its interval
    std = float(values.std(ddof=1)) if len(rows) > 1 else None
    ceiling = rows[0].get("ceiling")
    over = image_low, image_high, rows[0].get("images")
    return Measured(float(values.mean()), std, low, high, rows[0][count], ceiling, *over)


def _mean_of(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(np.mean(known)) if len(known) == len(numbers) else None
