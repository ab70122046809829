"""Shares of answers that change, counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from umd.metrics.grounding import CONTROL_COLUMNS, control_rows


def answers(given: list[str], correct: list[bool | None]) -> pd.DataFrame:
    table = pd.DataFrame({"answer": given, "correct": pd.Series(correct, dtype=object)})
    return table.assign(image=["a", "a", "b", "b"][: len(given)], closed=[True, True, False, False][: len(given)])


def test_shares_are_those_counted_by_hand() -> None:
    asked = answers(["yes", "no", "lung", "head"], [True, False, True, True])
    changed = answers(["yes", "yes", "liver", "head"], [True, True, False, True])
    whole, of_open, of_closed = control_rows(asked, {"blank": changed})
    assert [row["control"] for row in (whole, of_open, of_closed)] == ["blank", "blank, open", "blank, closed"]
    shares = ("questions", "accuracy", "as_asked", "both_right", "changed")
    assert [whole[key] for key in shares] == [4, 75, 75, 50, 50]
    assert [of_open[key] for key in shares] == [2, 50, 100, 50, 50]
    assert [of_closed[key] for key in shares] == [2, 100, 50, 50, 50]
    assert list(whole) == list(CONTROL_COLUMNS)
    assert whole["interval_low"] < 75 < whole["interval_high"]


def test_a_control_of_some_questions_is_laid_beside_those() -> None:
    asked = answers(["yes", "no", "lung", "head"], [True, False, True, True])
    twins = pd.DataFrame({"answer": ["lung"], "correct": [True]}, index=[2])
    (whole, of_open) = control_rows(asked, {"twin": twins})
    assert [whole[key] for key in ("questions", "as_asked", "both_right", "changed")] == [1, 100, 100, 0]
    assert of_open == {**whole, "control": "twin, open"}


def test_a_question_without_a_true_answer_counts_only_where_none_has_one() -> None:
    asked, changed = answers(["yes", "no"], [True, None]), answers(["yes", "yes"], [False, None])
    assert control_rows(asked, {"blank": changed})[0]["questions"] == 1
    nobody = control_rows(answers(["yes", "no"], [None, None]), {"blank": answers(["yes", "yes"], [None, None])})[0]
    assert (nobody["questions"], nobody["accuracy"], nobody["changed"]) == (2, None, pytest.approx(50))


def test_questions_of_which_nobody_knows_whether_they_are_closed_are_neither() -> None:
    asked = answers(["yes", "no"], [None, None]).assign(closed=pd.Series([True, None], dtype=object))
    whole, of_closed = control_rows(asked, {"blank": asked})
    assert (whole["questions"], of_closed["control"], of_closed["questions"]) == (2, "blank, closed", 1)
