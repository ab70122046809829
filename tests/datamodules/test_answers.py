from __future__ import annotations

import pytest

from datamodules.answers import answer_vocabulary, ceiling, normalize_answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes ", "yes"),
        ("The  right lung.", "right lung"),
        ("Two", "2"),
        (2, "2"),
        (2.0, "2"),
        (2.5, "2.5"),
        ("2.5 cm", "2.5 cm"),
        ("1,000 ml", "1000 ml"),
        ("X-ray", "x ray"),
        ("T2-weighted (MRI)", "t2 weighted mri"),
        ("Crohn's disease", "crohn's disease"),
        ("left, and right", "left and right"),
        ("none", "0"),
        ("A", "a"),
        ("?", "?"),
        (0, "0"),
        (None, None),
        ("  ", None),
        (["yes"], None),
        (True, None),
    ],
)
def test_normalize_answer(answer: object, expected: str | None) -> None:
    once = normalize_answer(answer)
    assert once == expected
    assert normalize_answer(once) == once


def test_vocabulary_is_ordered_by_frequency_then_alphabet() -> None:
    assert answer_vocabulary(["b", "c", "a", "c"]) == ("c", "a", "b")


def test_ceiling_counts_reachable_answers() -> None:
    assert ceiling([("yes",), ("no",), ("rare",), ("odd", "yes")], ("yes", "no")) == 75.0
    with pytest.raises(ValueError, match="no answers"):
        ceiling([], ("yes",))
