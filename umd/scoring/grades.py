"""How good each answer is: right or wrong, and how near in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd.scoring.text import plain
from umd.scoring.yes_no import read_yes_no

if TYPE_CHECKING:
    from torch import Tensor

METRICS: Final = ("correct", "exact_match", "token_f1", "token_precision", "token_recall", "bleu_1", "rouge_l")
"""Columns of `grade` that are between 0 and 1 and have a mean."""

YES_NO: Final = frozenset({"yes", "no"})

Normalize = Callable[[object], str | None]
_Overlap = tuple[float, float, float]


def compared(answer: object, normalize: Normalize) -> str:
    """What an answer is compared by: the VQA normalisation of its plain form; "" where that leaves nothing."""
    return normalize(plain(answer) if isinstance(answer, str) else answer) or ""


def grade(
    accepted: Sequence[tuple[str, ...]],
    answers: Sequence[str | None],
    closed: Sequence[bool],
    normalize: Normalize,
) -> pd.DataFrame:
    """Each answer's marks.

    An answer and those that are accepted are compared after the same normalisation; words are what blanks separate
    then, so "lungs" is another word than "lung". Of several accepted answers the best counts.

    Args:
        accepted: the answers that count as right, of N questions; each has one at least.
        answers: what was answered; None where nothing was, which is wrong and scores 0.
        closed: whether a question is a closed one.
        normalize: the VQA normalisation.

    Returns:
        A row a question: `answer` (as it is compared), `exact_match`, `token_f1`, `token_precision` and `token_recall`
        (of the accepted answer with the best F1), `bleu_1` and `rouge_l` (F1; both torchmetrics' on single answers),
        `read` (the yes or no that was read out of the text, "" where that does not apply or cannot be read),
        `unreadable` (a closed question about yes or no whose answer says neither), and `correct`: the exact match or,
        for a closed question about yes or no, whether what was read is accepted.
    """
    given = [compared(answer, normalize) for answer in answers]
    forms = {ones: tuple(compared(one, normalize) for one in ones) for ones in set(accepted)}
    right = [forms[ones] for ones in accepted]
    exact = np.array([one in ones and bool(one) for one, ones in zip(given, right, strict=True)], dtype=bool)
    asks_yes_no = [
        bool(is_closed) and not YES_NO.isdisjoint(ones) for is_closed, ones in zip(closed, right, strict=True)
    ]
    to_read = [answer if asked else None for answer, asked in zip(answers, asks_yes_no, strict=True)]
    said = {answer: "" if answer is None else read_yes_no(answer) or "" for answer in set(to_read)}
    read = [said[answer] for answer in to_read]
    correct = exact | np.array([one in ones and bool(one) for one, ones in zip(read, right, strict=True)], dtype=bool)
    unreadable = [
        asked and not one and bool(text) and not hit
        for asked, one, text, hit in zip(asks_yes_no, read, given, exact, strict=True)
    ]
    overlap, bleu, rouge = _near(given, right)
    return pd.DataFrame(
        {
            "answer": given,
            "correct": correct,
            "exact_match": exact,
            "token_f1": overlap[:, 0],
            "token_precision": overlap[:, 1],
            "token_recall": overlap[:, 2],
            "bleu_1": bleu,
            "rouge_l": rouge,
            "read": read,
            "unreadable": unreadable,
        }
    )


def token_overlap(answer: str, accepted: Sequence[str]) -> _Overlap:
    """F1, precision and recall of an answer's words, for the accepted answer with the best F1.

    Words count as often as they occur (as in SQuAD's F1, Rajpurkar et al., EMNLP 2016).
    """
    words = Counter(answer.split())
    best = (0.0, 0.0, 0.0)
    for one in accepted:
        true = Counter(one.split())
        shared = (words & true).total()
        if shared:
            precision, recall = shared / words.total(), shared / true.total()
            best = max(best, (2 * precision * recall / (precision + recall), precision, recall))
    return best


def _near(
    given: Sequence[str], right: Sequence[tuple[str, ...]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Token overlap (N, 3), BLEU-1 (N,) and ROUGE-L (N,).

    All that they see of a pair is which words are the same ones, so each pattern is looked at once. One without a
    common word scores 0 by all of them and need not be.
    """
    pairs = list(zip(given, right, strict=True))
    patterns = {pair: _pattern(*pair) for pair in set(pairs)}
    distinct = list(dict.fromkeys(patterns.values()))
    overlaps = np.array([token_overlap(answer, ones) for answer, ones in distinct]).reshape(-1, 3)
    touching = np.flatnonzero(overlaps[:, 0] > 0)
    bleu, rouge = np.zeros(len(distinct)), np.zeros(len(distinct))
    if len(touching):
        bleu[touching], rouge[touching] = _by_torchmetrics([distinct[place] for place in touching])
    number = {pattern: place for place, pattern in enumerate(distinct)}
    places = np.array([number[patterns[pair]] for pair in pairs], dtype=np.intp)
    return overlaps[places], bleu[places], rouge[places]


def _pattern(answer: str, accepted: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """A pair with its words numbered in the order in which they first occur."""
    numbers: dict[str, str] = {}

    def numbered(text: str) -> str:
        return " ".join(numbers.setdefault(word, str(len(numbers))) for word in text.split())

    return numbered(answer), tuple(map(numbered, accepted))


def _by_torchmetrics(pairs: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[list[float], list[float]]:
    """BLEU-1 and ROUGE-L (F1) of each answer by itself, of the best accepted one."""
    from torchmetrics.functional.text import bleu_score  # not above: torch takes seconds, and mistakes are said first
    from torchmetrics.text import ROUGEScore

    rouge = ROUGEScore(rouge_keys="rougeL", accumulate="best", normalizer=str, tokenizer=str.split)
    rouge.update([answer for answer, _ in pairs], [list(ones) for _, ones in pairs])
    bleu = [float(bleu_score([answer], [ones], n_gram=1)) for answer, ones in pairs]
    of_each: list[Tensor] = rouge.metric_state["rougeL_fmeasure"]  # type: ignore[assignment] # a state is either
    return bleu, [float(value) for value in of_each]
