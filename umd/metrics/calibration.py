"""Whether a confidence can be believed, and what is gained where the least sure answers are withheld.

A confidence is calibrated where, of all answers given with confidence p, a share p is right. Nothing is asked of the
confidences of answers that were not given, so one sigmoid an answer, a softmax and a likelihood are all measured alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd.metrics.predictions import question_groups

BINS: Final = 15
COVERAGE: Final = 0.8

CALIBRATION_COLUMNS: Final = (
    "group",
    "questions",
    "accuracy",
    "mean_confidence",
    "expected_calibration_error",
    "risk_coverage_area",
    "least_area",
    "accuracy_at_80",
)
"""The keys of a row of `calibration_rows`, in the order of the table."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Answers by their confidence, in K bins of equal width over 0..1, of which each holds its lower edge.

    Attributes:
        count: (K,) answers in each.
        confidence: (K,) their mean confidence, nan where there is none.
        accuracy: (K,) the share of them that is right, nan where there is none.
    """

    count: NDArray[np.int64]
    confidence: Vector
    accuracy: Vector


def reliability(confidence: Vector, correct: NDArray[np.bool_], bins: int = BINS) -> Bins:
    """What a reliability diagram shows (Guo et al., ICML 2017).

    Args:
        confidence: (N,) in 0..1.
        correct: (N,).
        bins: K, how many.

    Raises:
        ValueError: no answer, vectors of other lengths, or a confidence out of 0..1.
    """
    _check(confidence, correct)
    # The bin of 1 is the last one, which holds both its edges.
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.where(count > 0, count, np.nan)
    return Bins(
        count=count,
        confidence=np.bincount(place, confidence, bins) / some,
        accuracy=np.bincount(place, correct.astype(np.float64), bins) / some,
    )


def expected_calibration_error(confidence: Vector, correct: NDArray[np.bool_], bins: int = BINS) -> float:
    """The mean over answers of the gap between accuracy and mean confidence in their bin, 0..1 (arguments as above)."""
    found = reliability(confidence, correct, bins)
    return float(np.nansum(found.count * np.abs(found.accuracy - found.confidence)) / len(confidence))


def risk_coverage(confidence: Vector, correct: NDArray[np.bool_]) -> Vector:
    """The share of wrong answers among the k surest, for k = 1..N, (N,): the risk at coverage k / N.

    Of equally sure answers each order is as good as any other: the expected risk over them is taken, so that it does
    not depend on the order of the questions.

    Args:
        confidence: (N,) in 0..1.
        correct: (N,).

    Raises:
        ValueError: as in `reliability`.
    """
    _check(confidence, correct)
    _, level = np.unique(-confidence, return_inverse=True)
    wrong = np.bincount(level, ~correct) / np.bincount(level)
    return np.cumsum(wrong[np.sort(level)]) / np.arange(1, len(confidence) + 1)


def risk_coverage_area(risk: Vector) -> float:
    """The mean risk over all coverages (AURC of Geifman et al., ICLR 2019), 0..1; lower is better.

    Confidences that say nothing have the error rate; the least area is that of the perfect order, see `least_area`.
    """
    return float(risk.mean())


def least_area(correct: NDArray[np.bool_]) -> float:
    """The area if every right answer were surer than every wrong one: what no confidence can go below."""
    return risk_coverage_area(risk_coverage(correct.astype(np.float64), correct))


def accuracy_at(risk: Vector, coverage: float) -> float:
    """The share of right answers among the surest, as many as it takes to answer this share of the questions."""
    # A product such as 0.8 * 5 may lie a little above the whole number that it is.
    answered = int(np.ceil(coverage * len(risk) - 1e-9))
    return 1 - float(risk[max(answered, 1) - 1])


def calibration_rows(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each group of questions (see `umd.metrics.predictions.question_groups`).

    Args:
        answers: a row a question whose truth is known, with `confidence` and `correct`.

    Returns:
        Dictionaries with the keys `CALIBRATION_COLUMNS`, all but the first two in per cent.
    """
    confidence, correct = answers["confidence"].to_numpy(np.float64), answers["correct"].to_numpy(np.bool_)
    rows = []
    for group, members in question_groups(answers).items():
        sure, right = confidence[members], correct[members]
        risk = risk_coverage(sure, right)
        values = {
            "accuracy": right.mean(),
            "mean_confidence": sure.mean(),
            "expected_calibration_error": expected_calibration_error(sure, right),
            "risk_coverage_area": risk_coverage_area(risk),
            "least_area": least_area(right),
            "accuracy_at_80": accuracy_at(risk, COVERAGE),
        }
        rows.append(
            {"group": group, "questions": len(right), **{name: 100 * float(one) for name, one in values.items()}}
        )
    return rows


def _check(confidence: Vector, correct: NDArray[np.bool_]) -> None:
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ValueError(f"confidence and correct: vectors of one length, got {confidence.shape}, {correct.shape}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidence: must lie in 0..1")
