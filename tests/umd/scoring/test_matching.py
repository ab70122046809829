"""Rows find their questions by id or by image and question, whatever their order and their spelling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.umd.scoring.samples import questions
from umd.files import UserError
from umd.scoring.answers import read_answers
from umd.scoring.matching import Matched, image_ends, image_of, match

ASKED = questions(
    [
        {"answer": "lung", "question_id": "12", "image": "imgs/xmlab1/source.jpg", "question": "What is it?"},
        {"answer": "yes", "question_id": "7", "image": "imgs/xmlab1/source.jpg", "question": "Is it big?"},
        {"answer": "ct", "question_id": "a#2", "image": "imgs/xmlab2/source.jpg", "question": "What is it?"},
    ]
).table


def matched(path: Path, content: object) -> Matched:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return match(ASKED, read_answers(path), lambda answer: answer.strip().lower())


@pytest.mark.parametrize("one", [12, "12", 12.0, "12.0", " 12 ", "\uff11\uff12"])
def test_an_id_is_one_however_it_is_written(tmp_path: Path, one: object) -> None:
    found = matched(tmp_path / "a.json", [{"qid": "a#2", "answer": "CT"}, {"qid": one, "answer": "Lung"}])
    assert found.answers == ["Lung", None, "CT"]
    assert found.counts | {"missing": 1} == found.counts and "question id" in found.by
    assert any("without an answer" in note and "(7)" in note for note in found.notes)


def test_rows_are_found_by_image_and_question(tmp_path: Path) -> None:
    rows = "img_name,Question,Prediction\n/data/slake/imgs/xmlab2/source.jpg,what is it,CT\n"
    rows += "xmlab1/source,  WHAT is it? ,lung\nsource.jpg,Is it big?,no\n"
    found = matched(tmp_path / "a.csv", rows)
    assert found.answers == ["lung", None, "CT"], "source.jpg alone is not clear"
    assert found.counts["unknown"] == 1 and found.by == "image and question"


def test_a_running_number_is_no_question_id(tmp_path: Path) -> None:
    rows = [
        {"id": 12, "image": "xmlab2/source.jpg", "question": "What is it?", "answer": "ct"},
        {"id": 7, "image": "xmlab1/source.jpg", "question": "What is it?", "answer": "lung"},
    ]
    found = matched(tmp_path / "a.json", rows)
    assert found.answers == ["lung", None, "ct"] and "'id' is no question id" in found.notes[0]


def test_repeated_rows_count_once_and_contradictions_count_as_none(tmp_path: Path) -> None:
    rows = [("12", "Lung"), ("12", "lung "), ("7", "yes"), ("7", "no"), ("7", "yes"), ("x", "ct"), ("a#2", " ")]
    found = matched(tmp_path / "a.json", [{"question_id": name, "answer": answer} for name, answer in rows])
    assert found.answers == ["Lung", None, " "] and found.there == [True, True, True]
    counts = {"missing": 0, "contradictory": 1, "repeated": 1, "unknown": 1, "empty": 1, "other": 0}
    assert found.counts == counts
    assert any("different answers: wrong: 1 (7)" in note for note in found.notes)


def test_a_file_that_matches_nothing_is_an_error_that_shows_both_sides(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its 1 rows is among the 3 questions.*'12'.*first row has qid 'q99'"):
        matched(tmp_path / "a.json", [{"qid": "q99", "answer": "lung"}])


def test_ids_that_fit_by_accident_are_an_error_or_leave_it_to_image_and_question(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"qid": number, "answer": "lung"} for number in (12, 1, 2)]
    with pytest.raises(UserError, match="only 1 of its 3 rows is among the 3 questions"):
        matched(tmp_path / "a.json", rows)
    where = [
        {"img": "xmlab1/source", "question": question} for question in ("Is it big?", "What is it?", "What is it?")
    ]
    where[2]["img"] = "xmlab2/source"
    found = matched(tmp_path / "a.json", [row | more for row, more in zip(rows, where, strict=True)])
    assert found.by == "image and question" and found.answers == ["lung"] * 3
    every = [{"qid": number, "answer": "lung"} for number in range(100)]
    assert matched(tmp_path / "a.json", every).answers == ["lung", "lung", None], (
        "all splits in one file are no accident"
    )


def test_the_questions_of_another_data_set_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"qid": 12, "question": "what is it", "answer": "lung"},
        {"qid": 7, "question": "Is it big?", "answer": "yes"},
        {"qid": "a#2", "question": "Where is it?", "answer": "ct"},
    ]
    found = matched(tmp_path / "a.json", rows)
    assert found.answers == ["lung", "yes", "ct"] and found.counts["other"] == 1


def test_an_image_is_found_by_any_end_of_its_path_that_is_its_own() -> None:
    ends = image_ends(["images/a.jpg", "images/b.jpg", "more/b.png"])
    names = ("a.jpg", "A", "C:\\data\\images\\a.jpg", "images/b.jpg", "more/b", "b.jpg", "b", "c.jpg", "")
    found = ["images/a.jpg"] * 3 + ["images/b.jpg", "more/b.png", "images/b.jpg", None, None, None]
    assert [image_of(name, ends) for name in names] == found
