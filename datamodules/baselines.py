"""What can be said without looking at the image: the most frequent answer, and that to the nearest question."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

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


_WORD = re.compile(r"[^\W_]+")
# Two similarities that differ by less are one: sums of the same terms in another order.
_TIE = 1e-9
# Similarities that are held at once.
_BLOCK = 2_000_000


def nearest_answers(training: Sequence[VQARecord], asked: Sequence[VQARecord]) -> list[str]:
    """The training answer to the most similar question, by its words alone, for each question that is asked.

    Similar is what has a large cosine between TF-IDF vectors (scikit-learn's, of words, fitted on the training
    questions). Where several training rows are equally near, as those with the same question about several images are,
    their most frequent answer is taken, and of equally frequent ones the alphabetically first. A question without a
    word of the training questions is equally near to all of them.

    Args:
        training: The rows trained on; one at least.
        asked: The questions.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # not above: it takes a second, and few need it

    answers: dict[str, list[str]] = defaultdict(list)
    for record in training:
        answers[record.question.lower()].append(record.answer)
    known = list(answers)
    wanted = list(dict.fromkeys(record.question.lower() for record in asked))
    if not any(_WORD.search(question) for question in known):
        return [most_frequent(record.answer for record in training)] * len(asked)
    vectors = TfidfVectorizer(token_pattern=_WORD.pattern)
    of_known = vectors.fit_transform(known).T.tocsc()
    of_wanted = vectors.transform(wanted)
    found: dict[str, str] = {}
    step = max(1, _BLOCK // len(known))
    for start in range(0, len(wanted), step):
        similar = (of_wanted[start : start + step] @ of_known).toarray()
        for question, row in zip(wanted[start:], similar, strict=False):
            near = np.flatnonzero(row >= row.max() - _TIE)
            found[question] = most_frequent(answer for place in near for answer in answers[known[place]])
    return [found[record.question.lower()] for record in asked]


def fools(training: Sequence[VQARecord], asked: Sequence[VQARecord]) -> dict[str, list[str]]:
    """What is answered without looking at the image, by who does: an answer for each question that is asked.

    Where some questions have a twin in train, as published, one more says its answer (the most frequent of several),
    and to the other questions the most frequent one of their type.

    Args:
        training: The rows trained on; one at least.
        asked: The questions.
    """
    overall, of_type = most_frequent(record.answer for record in training), MostFrequentAnswer(training)
    answers = {
        "most frequent": [overall] * len(asked),
        "most frequent of type": [of_type(record) for record in asked],
        "nearest question": nearest_answers(training, asked),
    }
    answered = [[twin.answer for twin in record.twins if twin.answer] for record in asked]
    if any(answered):
        answers["twin"] = [
            most_frequent(ones) if ones else of_type(record) for ones, record in zip(answered, asked, strict=True)
        ]
    return answers
