"""Answers to questions: the usual VQA normalisation, the vocabulary, and what a vocabulary can reach."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

ARTICLES = frozenset({"a", "an", "the"})
NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_PUNCTUATION = re.compile(r"""[;/\[\]"{}()=+\\_\-><@`,?!–—]""")  # noqa: RUF001


def normalize_answer(answer: object) -> str | None:
    """An answer as it is compared: lower case, no articles, no punctuation, number words as digits.

    The rules of the VQA evaluation (Antol et al., ICCV 2015) but for its list of contractions: decimal
    points, apostrophes, colons and per cent signs stay, other marks become blanks ("x-ray" is "x ray"), full
    stops go, "none" is 0. Applying it twice changes nothing.

    Args:
        answer: Text or a number, as a data set's JSON gives it.

    Returns:
        The normalised answer (the lower-case text where nothing else would be left of it, as for "A"), or
        None where there is no answer: null, blank, not a number, or neither text nor number.
    """
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return None
    if isinstance(answer, float):
        if not math.isfinite(answer):
            return None
        answer = int(answer) if answer.is_integer() else answer
    plain = " ".join(str(answer).lower().split())
    text = _PUNCTUATION.sub(" ", _FULL_STOP.sub("", _THOUSANDS.sub("", plain)))
    words = [NUMBER_WORDS.get(word, word) for word in text.split() if word not in ARTICLES]
    return " ".join(words) or plain or None


def accepted_answers(published: object) -> dict[str, str]:
    """The answers that count as right, normalised, each with its published form; the first is the one trained on.

    Args:
        published: One answer, or a list of them, as a data set gives it; what is no answer is passed over.

    Returns:
        The forms by normalised answer, in the order of the list; nothing where there is no answer.
    """
    accepted: dict[str, str] = {}
    for form in published if isinstance(published, list | tuple) else [published]:
        answer = normalize_answer(form)
        if answer is not None:
            accepted.setdefault(answer, str(form).strip())
    return accepted


def answer_vocabulary(answers: Iterable[str]) -> tuple[str, ...]:
    """The distinct answers, most frequent first, equally frequent ones in alphabetical order."""
    counts = Counter(answers)
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer)))


def ceiling(accepted: Sequence[tuple[str, ...]], vocabulary: Collection[str]) -> float:
    """The accuracy, in per cent, that no classifier over `vocabulary` can exceed on these questions.

    Args:
        accepted: The accepted answers of each question.
        vocabulary: The answers to choose from.

    Raises:
        ValueError: There are no questions.
    """
    if not accepted:
        raise ValueError("ceiling: no answers given")
    known = set(vocabulary)
    return 100.0 * sum(not known.isdisjoint(answers) for answers in accepted) / len(accepted)
