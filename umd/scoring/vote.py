"""An ensemble of systems: the answer that most of them give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from umd.scoring.matching import Matched

VOTE = "vote"
"""What the ensemble is called among the systems."""


def vote(matched: Mapping[str, Matched], same: Callable[[str], str]) -> Matched:
    """Each question's most frequent answer among the systems; of several the one whose system is named first.

    Who gives a question no answer, or an empty one, has no vote.

    Args:
        matched: each system's answers to the same questions, by its name; of less than three the first always wins.
        same: what an answer is compared by.
    """
    answers: list[str | None] = []
    tied = 0
    for given in zip(*(found.answers for found in matched.values()), strict=True):
        voices = [answer for answer in given if answer is not None and answer.strip()]
        ballots = Counter(map(same, voices))  # in the order of the systems, which most_common keeps
        (won, most), *others = ballots.most_common() or [("", 0)]
        tied += any(count == most for _, count in others)
        answers.append(next((answer for answer in voices if same(answer) == won), None))
    missing = sum(answer is None for answer in answers)
    notes = [f"the answer of most of {', '.join(matched)}"]
    if tied:
        notes.append(f"{tied:,} questions have several answers with most votes: that of the first system counts")
    if missing:
        notes.append(f"{missing:,} questions have no answer: wrong")
    there = [any(of_one) for of_one in zip(*(found.there for found in matched.values()), strict=True)]
    counts = dict.fromkeys(next(iter(matched.values())).counts, 0) | {"missing": missing, "tied": tied}
    return Matched(answers, there, "votes", counts, tuple(notes))
