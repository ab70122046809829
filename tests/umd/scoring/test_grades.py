"""Marks against closed forms and other implementations of the same metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from torchmetrics.functional.text import bleu_score, rouge_score, squad

from datamodules.answers import normalize_answer
from umd.scoring.grades import compared, grade, token_overlap

WORDS = ("left", "right", "lung", "lower", "lobe", "heart", "mri", "3", "of", "and", "pleural", "effusion")


def sentences(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 7))) for _ in range(count)]


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Of subsequences, without dynamic programming's table."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + longest_common(one[1:], other[1:])
    return max(longest_common(one[1:], other), longest_common(one, other[1:]))


def test_single_answers_have_the_values_of_the_libraries_and_of_the_definitions() -> None:
    given, right = sentences(150, 0), sentences(150, 1)
    marks = grade([(one,) for one in right], given, [False] * len(given), normalize_answer)
    for answer, truth, row in zip(given, right, marks.to_dict("records"), strict=True):
        words, true = answer.split(), truth.split()
        of_squad = squad(
            {"prediction_text": answer, "id": "0"}, {"answers": {"answer_start": [0], "text": [truth]}, "id": "0"}
        )
        assert 100 * row["token_f1"] == pytest.approx(float(of_squad["f1"]), abs=1e-4)
        assert 100 * row["exact_match"] == float(of_squad["exact_match"])
        assert row["bleu_1"] == pytest.approx(float(bleu_score([answer], [[truth]], n_gram=1)))
        shared = sum(min(words.count(word), true.count(word)) for word in set(words))
        brevity = 1.0 if len(words) > len(true) else math.exp(1 - len(true) / len(words))
        assert row["bleu_1"] == pytest.approx(brevity * shared / len(words), abs=1e-6)
        assert row["token_precision"] == shared / len(words) and row["token_recall"] == shared / len(true)
        assert row["rouge_l"] == pytest.approx(
            float(rouge_score(answer, truth, rouge_keys="rougeL")["rougeL_fmeasure"])
        )
        common = longest_common(words, true)
        assert row["rouge_l"] == pytest.approx(2 * common / (len(words) + len(true)), abs=1e-6)


def test_rouge_and_bleu_are_those_of_the_packages_that_papers_use() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    sentence_bleu = pytest.importorskip("nltk.translate.bleu_score").sentence_bleu
    given, right = sentences(60, 2), sentences(60, 3)
    marks = grade([(one,) for one in right], given, [False] * len(given), normalize_answer)
    for answer, truth, row in zip(given, right, marks.to_dict("records"), strict=True):
        assert row["rouge_l"] == pytest.approx(scorer.score(truth, answer)["rougeL"].fmeasure, abs=1e-6)
        if row["bleu_1"]:
            expected = sentence_bleu([truth.split()], answer.split(), weights=(1,))
            assert row["bleu_1"] == pytest.approx(expected, abs=1e-6)


def test_of_several_accepted_answers_the_best_counts() -> None:
    marks = grade(
        [("left lung", "left lower lobe"), ("yes", "probable")],
        ["lower lobe left", "Probable."],
        [False, True],
        normalize_answer,
    )
    assert marks["token_f1"].tolist() == [1.0, 1.0]
    assert marks["exact_match"].tolist() == [False, True] and marks["correct"].tolist() == [False, True]
    assert token_overlap("left lobe", ["left", "left lower lobe"]) == pytest.approx((0.8, 1.0, 2 / 3))


def test_no_answer_is_wrong_even_where_nothing_is_left_of_the_true_one() -> None:
    marks = grade([("",), ("lung",), ("no",)], [None, "", " "], [False, False, True], normalize_answer)
    for name in ("correct", "exact_match", "token_f1", "bleu_1", "rouge_l", "unreadable"):
        assert not marks[name].any(), name


def test_a_sentence_answers_closed_questions_about_yes_or_no_alone() -> None:
    accepted = [("yes",), ("yes",), ("ct",), ("yes",), ("no",)]
    answers = ["Yes, it is", "Yes, it is", "Yes, a CT", "It is there", "yes"]
    marks = grade(accepted, answers, [True, False, True, True, True], normalize_answer)
    assert marks["correct"].tolist() == [True, False, False, False, False]
    assert not marks["exact_match"].any()
    assert marks["read"].tolist() == ["yes", "", "", "", "yes"]
    assert marks["unreadable"].tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Pleural Effusion.", "pleural effusion", True),
        ("naïve", "nai\u0308ve", True),
        ("\uff23\uff34", "ct", True),
        ("left\u00a0lung", "left lung", True),
        ("x\u2011ray", "X-ray", True),
        ("the patient\u2019s left", "patient's left", True),
        ("\u200blung\ufeff", "lung", True),
        ("two", "2", True),
        ("2.0", "2", False),
        ("lungs", "lung", False),
        ("3.4 cm", "34 cm", False),
    ],
)
def test_what_looks_alike_is_alike(one: str, other: str, alike: bool) -> None:
    assert (compared(one, normalize_answer) == compared(other, normalize_answer)) is alike
