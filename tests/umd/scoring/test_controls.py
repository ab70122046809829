"""Answers to the same questions asked otherwise, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from datamodules.answers import normalize_answer
from tests.umd.scoring.samples import questions
from umd.files import UserError
from umd.scoring.answers import Given, read_answers
from umd.scoring.questions import Questions
from umd.scoring.scored import Scored, score

RIGHT = ["yes", "no", "left lung", "liver"]


def asked(**more: object) -> Questions:
    return questions([{"answer": answer, "closed": place < 2} for place, answer in enumerate(RIGHT)], **more)


def given(folder: Path, name: str, **columns: list[str]) -> Given:
    path = folder / f"{name}.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return read_answers(path)


def scored(folder: Path, of: Questions, answers: list[str], **controls: dict[str, list[str]]) -> Scored:
    ids = [str(place) for place in range(len(answers))]
    system = {"a": given(folder, "a", id=ids, answer=answers)}
    under = {name: given(folder, name, **columns) for name, columns in controls.items()}
    return score(of, system, normalize_answer, controls=under)


def counted(result: Scored, control: str) -> list[float]:
    (row,) = (row for row in result.controls if row["control"] == control)
    return [row[key] for key in ("questions", "images", "accuracy", "as_asked", "both_right", "changed")]


def test_shares_are_those_counted_by_hand(tmp_path: Path) -> None:
    blank = {"id": ["3", "1", "0", "2"], "answer": ["Liver.", "yes", "Yes, there is one.", "right lung"]}
    result = scored(tmp_path, asked(), ["yes", "no", "the left lung", "spleen"], blank=blank)
    # "Yes, there is one." says what "yes" said; the liver is right under the control alone.
    assert counted(result, "blank") == [4, 2, 50, 75, 25, 75]
    assert counted(result, "blank, closed") == [2, 1, 50, 100, 50, 50]
    assert counted(result, "blank, open") == [2, 1, 50, 50, 0, 100]
    assert result.as_json()["controls"] == result.controls


def test_what_either_file_lacks_is_left_out_and_images_may_be_others(tmp_path: Path) -> None:
    other = {"id": ["0", "2", "3", "9"], "image": ["images/1.jpg"] * 4, "answer": ["no", "left lung", "liver", "x"]}
    result = scored(tmp_path, asked(), ["yes", "no", "left lung"], other=other)
    assert counted(result, "other") == [2, 2, 50, 100, 50, 50]
    assert "control other: 2 questions are answered both ways, matched by question id ('id'), 1 unknown" in result.notes


def test_twins_are_found_by_their_own_ids_and_graded_by_their_own_answers(tmp_path: Path) -> None:
    twins = pd.DataFrame(
        {
            "of": ["0", "1", "2"],
            "question_id": ["70", "70", "80"],
            "image": "images/0.jpg",
            "question": ["Yes?", "Yes?", "Where?"],
            "accepted": [("yes",), ("yes",), ("left lung",)],
            "closed": [True, True, False],
            "has_twin": True,
        }
    )
    answers = {"id": ["70.0", "80"], "answer": ["It is, yes.", "lung"]}
    result = scored(tmp_path, asked(twins=twins), ["yes", "no", "lung", "liver"], twins=answers)
    assert counted(result, "twins") == pytest.approx([3, 2, 200 / 3, 200 / 3, 200 / 3, 100 / 3])
    assert not any("none of the" in note for note in result.notes)
    more = {name: [*column, column[0]] for name, column in answers.items()} | {"id": ["70.0", "80", "81"]}
    notes = scored(tmp_path, asked(twins=twins), ["yes", "no", "lung", "liver"], twins=more).notes
    assert any(note.endswith("('id'), 1 rows for none of the 2 twins that are compared") for note in notes)
    with pytest.raises(UserError, match="these questions have none"):
        scored(tmp_path, asked(), RIGHT, twins=answers)


def test_a_control_without_a_question_in_common_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not one of its questions is answered as asked"):
        scored(tmp_path, asked(), ["yes", "no"], blank={"id": ["2", "3"], "answer": ["x", "y"]})
