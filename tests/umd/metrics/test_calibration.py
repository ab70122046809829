"""Calibration and abstention against closed forms and torchmetrics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from umd.metrics.calibration import (
    CALIBRATION_COLUMNS,
    accuracy_at,
    calibration_rows,
    expected_calibration_error,
    least_area,
    reliability,
    risk_coverage,
    risk_coverage_area,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_error_is_that_of_torchmetrics(bins: int) -> None:
    confidence, correct = RANDOM.random(500), RANDOM.random(500) < 0.3
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct).int(), n_bins=bins, norm="l1")
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(float(theirs), abs=1e-6)


def test_the_error_of_one_confidence_is_its_distance_from_the_accuracy() -> None:
    correct = np.array([True, False, False, False])
    for sure in (0.0, 0.25, 0.9, 1.0):
        assert expected_calibration_error(np.full(4, sure), correct) == pytest.approx(abs(sure - 0.25))
    found = reliability(np.full(4, 1.0), correct)
    assert found.count[-1] == 4 and found.count.sum() == 4 and np.isnan(found.accuracy[0])


def test_a_confidence_that_says_nothing_has_the_error_rate_at_every_coverage() -> None:
    correct = RANDOM.random(40) < 0.6
    np.testing.assert_allclose(risk_coverage(np.full(40, 0.5), correct), 1 - correct.mean())


def test_the_perfect_order_has_no_risk_until_the_right_answers_are_all_given() -> None:
    correct = np.arange(10) < 6
    risk = risk_coverage(np.linspace(1, 0, 10), correct)
    by_hand = [0.0] * 6 + [1 / 7, 2 / 8, 3 / 9, 4 / 10]
    np.testing.assert_allclose(risk, by_hand)
    assert least_area(correct) == pytest.approx(np.mean(by_hand)) == pytest.approx(risk_coverage_area(risk))
    assert accuracy_at(risk, 0.6) == 1 and accuracy_at(risk, 0.8) == pytest.approx(6 / 8)
    assert accuracy_at(risk, 1.0) == pytest.approx(0.6) and accuracy_at(risk, 0.01) == 1


def test_equally_sure_answers_count_as_their_mean_over_all_orders() -> None:
    confidence, correct = RANDOM.integers(1, 4, 30) / 4, RANDOM.random(30) < 0.5
    orders = [RANDOM.permutation(30) for _ in range(4000)]
    drawn = [
        np.cumsum(~correct[order][np.argsort(-confidence[order], kind="stable")]) / np.arange(1, 31) for order in orders
    ]
    np.testing.assert_allclose(risk_coverage(confidence, correct), np.mean(drawn, axis=0), atol=0.03)
    order = orders[0]
    np.testing.assert_array_equal(risk_coverage(confidence, correct), risk_coverage(confidence[order], correct[order]))


def test_rows_are_those_of_each_group() -> None:
    table = pd.DataFrame({"confidence": [0.9, 0.2, 0.6, 0.7], "correct": [True, False, True, False]})
    rows = calibration_rows(table.assign(closed=[True, True, False, False], has_twin=False))
    assert {row["group"]: row["questions"] for row in rows} == {"open": 2, "closed": 2, "overall": 4}
    assert all(list(row) == list(CALIBRATION_COLUMNS) for row in rows)
    of_open = rows[0]
    assert of_open["risk_coverage_area"] == pytest.approx(100 * np.mean([1, 0.5]))
    assert of_open["mean_confidence"] == pytest.approx(65) and of_open["least_area"] == pytest.approx(25)
    (alone,) = calibration_rows(table)
    assert alone["group"] == "accuracy"


def test_what_is_no_confidence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"in 0\.\.1"):
        reliability(np.array([1.5]), np.array([True]))
    with pytest.raises(ValueError, match="vectors of one length"):
        risk_coverage(np.array([]), np.array([], dtype=bool))
