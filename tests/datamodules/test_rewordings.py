"""Rewordings that are found by text, against those that VQA-RAD's original file shows."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import rewordings
from datamodules.questions import VQARecord
from datamodules.rewordings import LEAST, NEAR, find_rewordings, wording
from datamodules.vqa_rad import SINGLE_FILE, TEST_FILE, TRAIN_FILE

Row = dict[str, Any]
FORMS = ("question", "question_rephrase", "question_frame")


def record(row: Row) -> VQARecord:
    return VQARecord(
        "", row["image_name"], row["question"], str(row["answer"]).strip().lower(), False, row["question_type"]
    )


def question(image: str, text: str, answer: str, **more: Any) -> VQARecord:  # noqa: ANN401
    return VQARecord("", image, text, answer, False, "organ", **more)


def forms(row: Row) -> set[tuple[str, str]]:
    texts = [str(row.get(form)).strip().lower() for form in FORMS if row.get(form) not in (None, "NULL", "")]
    return {(row["image_name"], text) for text in texts}


def is_twin(train: Sequence[Row], test: Sequence[Row]) -> list[bool]:
    """The definition, with all forms of the test questions."""
    asked = {form for row in test for form in forms(row)}
    return [(row["image_name"], row["question"].strip().lower()) in asked for row in train]


def recall_and_precision(train: Sequence[Row], test: Sequence[Row], true: Sequence[bool]) -> tuple[float, float]:
    found = {one.train for one in find_rewordings([record(row) for row in train], [record(row) for row in test])}
    right = sum(true[place] for place in found)
    return right / sum(true), right / len(found)


def test_of_the_292_at_least_95_per_cent_are_found_and_at_most_10_are_false(shared_data: Path) -> None:
    root = shared_data / "vqa_rad"
    train, test = (json.loads((root / name).read_text()) for name in (TRAIN_FILE, TEST_FILE))
    original = json.loads((root / SINGLE_FILE).read_text())
    true = is_twin(train, [row for row in original if row["phrase_type"].startswith("test")])
    recall, precision = recall_and_precision(train, test, true)
    assert sum(true) == 292 and recall >= 0.95 and precision >= 0.9


def made_of_training_rows(original: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Train and test from the training rows alone: of 18 % of the questions all original forms are held out."""
    rows = [row for row in original if not row["phrase_type"].startswith("test")]
    questions = sorted({row["qid_linked_id"] for row in rows})
    chosen = set(random.Random(seed).sample(questions, int(0.18 * len(questions))))
    framed = [
        {**row, "question": row["question_frame"]} for row in rows if row.get("question_frame") not in (None, "NULL")
    ]
    kept = [row for row in rows if row["qid_linked_id"] not in chosen]
    return [*kept, *framed], [row for row in rows if row["qid_linked_id"] in chosen]


@pytest.mark.slow
def test_the_thresholds_are_the_best_on_training_rows_alone(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = json.loads((shared_data / "vqa_rad" / SINGLE_FILE).read_text())
    vectors = rewordings._vectors
    once = cache(lambda words: vectors(words))
    monkeypatch.setattr(rewordings, "_vectors", lambda words: once(tuple(words)))
    splits = [made_of_training_rows(original, seed) for seed in range(4)]
    of_pair = {}
    for least, near in product((0.05, 0.08, 0.1, 0.12, 0.15), (0.3, 0.4, 0.5, 0.6)):
        monkeypatch.setattr(rewordings, "LEAST", least)
        monkeypatch.setattr(rewordings, "NEAR", near)
        reached = [recall_and_precision(train, test, is_twin(train, test)) for train, test in splits]
        recall, precision = np.mean(reached, axis=0)
        of_pair[least, near] = 2 * recall * precision / (recall + precision)
    assert of_pair[LEAST, NEAR] >= max(of_pair.values()) - 0.001


def test_a_question_belongs_to_the_nearest_one_with_its_answer() -> None:
    train = [
        question("a.png", "Is there a fracture of the rib?", "yes"),
        question("a.png", "Is/Are there a fracture in the rib?", "yes"),  # rewords the row before it
        question("a.png", "How large is the mass?", "3 cm"),
        question("a.png", "What is the size of the mass?", "3 cm"),
        question("b.png", "Where is the lesion located?", "left lung"),  # another image
        question("a.png", "Where is the lesion located?", "right lung"),  # another answer
    ]
    asked = [
        question("a.png", "Are the lungs of normal size?", "yes"),
        question("a.png", "What is the diameter of this mass?", "3 cm"),
        question("a.png", "Where does the lesion lie?", "left lung"),
    ]
    assert {(one.train, one.held_out) for one in find_rewordings(train, asked)} == {(3, 1)}
    other_type = [replace(row, question_type="size") for row in asked]
    assert not find_rewordings(train, other_type)


def test_equal_words_are_twins_whatever_is_answered() -> None:
    train = [
        question("a.png", "Is it  large", "yes"),
        question("a.png", "IS IT LARGE?", "no"),
        question("a.png", "¿?", "no"),
    ]
    asked = [question("a.png", "Is it large?", ""), question("a.png", "¿?", "")]
    found = find_rewordings(train, asked)
    assert [(one.train, one.held_out, one.equal) for one in found] == [(0, 0, True), (1, 0, True), (2, 1, True)]
    assert all(one.similarity == pytest.approx(1) for one in found)
    assert find_rewordings([], asked) == find_rewordings(train, []) == []


def test_one_of_several_accepted_answers_is_enough() -> None:
    train = [question("a.png", "Which side is the nodule on?", "left")]
    asked = [question("a.png", "On which side is this nodule?", "left side", also_accepted=("left",))]
    assert len(find_rewordings(train, asked)) == 1


def test_neither_order_nor_the_size_of_a_block_matters(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shared_data / "vqa_rad"
    train, test = ([record(row) for row in json.loads((root / name).read_text())] for name in (TRAIN_FILE, TEST_FILE))
    found = {(one.train, one.held_out) for one in find_rewordings(train, test)}
    monkeypatch.setattr(rewordings, "_BLOCK", 3)
    backwards = find_rewordings(train[::-1], test[::-1])
    assert {(len(train) - 1 - one.train, len(test) - 1 - one.held_out) for one in backwards} == found


def test_the_words_alone_count() -> None:
    assert wording(" Is/Are the lungs clear ?") == wording("is are the LUNGS clear") == "is are the lungs clear"
