"""What can be said without looking, against a slow computation of the same."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from datamodules import VQARAD
from datamodules.baselines import MostFrequentAnswer, fools, nearest_answers
from datamodules.problems import Problems
from datamodules.questions import VQARecord


def record(question: str, answer: str, closed: bool = False) -> VQARecord:
    return VQARecord(question, "0.png", question, answer, closed, "")


def slow_nearest(training: list[VQARecord], asked: VQARecord) -> str:
    """Cosine of TF-IDF vectors, one row after the other."""
    texts = list(dict.fromkeys(row.question.lower() for row in training))

    def words(text: str) -> Counter[str]:
        return Counter("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())

    found_in = Counter(word for text in texts for word in set(words(text)))
    weights = {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in found_in.items()}

    def vector(text: str) -> dict[str, float]:
        values = {word: count * weights[word] for word, count in words(text).items() if word in weights}
        norm = math.sqrt(sum(value**2 for value in values.values())) or 1
        return {word: value / norm for word, value in values.items()}

    mine = vector(asked.question)
    near = [sum(mine.get(word, 0) * value for word, value in vector(row.question).items()) for row in training]
    answers = Counter(row.answer for row, one in zip(training, near, strict=True) if one > max(near) - 1e-9)
    return min(answers, key=lambda answer: (-answers[answer], answer))


def test_the_nearest_question_is_that_of_a_slow_search(shared_data: Path) -> None:
    data = VQARAD(str(shared_data / "vqa_rad"), validation_fraction=0)
    splits = data.read(Problems("VQA-RAD"))
    chosen = [splits["test"][place] for place in np.random.default_rng(0).choice(451, 15, replace=False)]
    assert nearest_answers(splits["train"], chosen) == [slow_nearest(splits["train"], one) for one in chosen]


def test_equally_near_questions_give_their_most_frequent_answer() -> None:
    training = [
        *(record("Where is it?", answer) for answer in ("left", "right", "right", "left")),
        record("What is it?", "heart"),
        record("what is it?", "lung"),
        record("WHAT is it?", "lung"),
    ]
    asked = [record("Where is it", ""), record("What is it!", ""), record("Ganz anderes", ""), record("?", "")]
    assert nearest_answers(training, asked) == ["left", "lung", "left", "left"]
    assert fools(training, asked)["most frequent"] == ["left"] * 4


@pytest.mark.parametrize("protocol", ["clean", "paper"])
@pytest.mark.parametrize("form", ["single", "split"])
def test_the_twins_of_vqa_rad_answer_as_the_original_file_says(
    shared_data: Path, form: Literal["single", "split"], protocol: Literal["clean", "paper"]
) -> None:
    data = VQARAD(str(shared_data / "vqa_rad"), annotations=form, protocol=protocol, validation_fraction=0)
    splits = data.read(Problems("VQA-RAD"))
    answers = fools(splits["train"], splits["test"])["twin"]
    asked = [(record, answer) for record, answer in zip(splits["test"], answers, strict=True) if record.has_twin]
    assert len(asked) == 286
    assert sum(any(twin.answer == record.answer for twin in record.twins) for record, _ in asked) == 284
    for record, answer in asked:
        counts = Counter(twin.answer for twin in record.twins)
        assert answer == min(counts, key=lambda one: (-counts[one], one))
    assert all(record.twins and {twin.image for twin in record.twins} == {record.image} for record, _ in asked)
    assert len({twin.sample_id for record, _ in asked for twin in record.twins}) == 292
    guess = MostFrequentAnswer(splits["train"])
    assert all(
        answer == guess(record) for record, answer in zip(splits["test"], answers, strict=True) if not record.has_twin
    )


def test_training_questions_without_a_word() -> None:
    assert nearest_answers([record("?", "b"), record("!", "a")], [record("what?", "")]) == ["a"]
