"""What can be said without looking: the most frequent answer of the training rows, per type of question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from datamodules.answers import answer_vocabulary
from datamodules.questions import VQARecord


class MostFrequentAnswer:
    """The most frequent training answer to questions of the same type, without image and wording.

    A type that does not occur in training falls back to all closed (or all open) questions, and where there
    are none of these either, to all questions. Of equally frequent answers the alphabetically first is taken.

    Args:
        training: The rows trained on.

    Raises:
        ValueError: There are no rows.
    """

    def __init__(self, training: Iterable[VQARecord]) -> None:
        of_type: dict[str, list[str]] = defaultdict(list)
        of_kind: dict[bool, list[str]] = defaultdict(list)
        overall: list[str] = []
        for record in training:
            of_type[record.question_type].append(record.answer)
            of_kind[record.closed].append(record.answer)
            overall.append(record.answer)
        if not overall:
            raise ValueError("the most frequent answer: there are no training rows")
        self._of_type = {name: most_frequent(answers) for name, answers in of_type.items()}
        self._of_kind = {closed: most_frequent(answers) for closed, answers in of_kind.items()}
        self._overall = most_frequent(overall)

    def __call__(self, record: VQARecord) -> str:
        """The answer that this question gets."""
        kind = self._of_kind.get(record.closed, self._overall)
        return self._of_type.get(record.question_type, kind)


def most_frequent(values: Iterable[str]) -> str:
    """The most frequent value, the alphabetically first of equally frequent ones; there must be one."""
    return answer_vocabulary(values)[0]
