"""Training questions that reword a held-out one, found from image, question and answer alone.

What a twin is, only the original file of VQA-RAD shows; where a data set lacks it, this finds what is likely one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.questions import VQARecord

NEAR = 0.4
"""Least similarity of two questions with one image, answer and type that are taken for one question."""

LEAST = 0.12
"""The same where, of all training questions with that image, answer and type, no other wording is nearer.

Both are the pair with the largest F1 among 20 (LEAST from 0.05 to 0.15, NEAR from 0.3 to 0.6) on VQA-RAD's training
rows alone: a part of its original questions was taken for a test split, their framed forms left in train
(`tests/datamodules/test_rewordings.py`). The real test questions had no part in that choice; the rule itself was
settled with a look at what it finds of their twins, 282 of 292 and 14 others.
"""

_WORD = re.compile(r"\w+")
_BLOCK = 512
"""Training questions that are compared with all others about their image at once."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rewording:
    """A training row and the held-out row that it rewords.

    Attributes:
        train: Place of the training row.
        held_out: Place of the held-out row.
        similarity: Of the questions, 0 to 1: the mean of two cosines of TF-IDF vectors, of words and of parts of words.
        equal: Whether the questions have the same words.
    """

    train: int
    held_out: int
    similarity: float
    equal: bool


def wording(question: str) -> str:
    """The words of a question, case and punctuation aside; where it has none, the question."""
    return " ".join(_WORD.findall(question.lower())) or question.strip()


def pair(record: VQARecord) -> Key:
    """What rows that ask the same of one image have in common."""
    return record.image, wording(record.question)


def find_rewordings(train: Sequence[VQARecord], held_out: Sequence[VQARecord]) -> list[Rewording]:
    """The pairs of a training and a held-out row with one image that ask the same, in the order of the training rows.

    They do if their words are equal, whatever the answers. If not, an accepted answer and the question type must be
    the same, and the similarity at least `NEAR`; or `LEAST`, if no training question of other words with the image, an
    answer and the type is nearer to the training row's. Rows without an answer are paired by equal words alone.

    Args:
        train: The rows to look among.
        held_out: The rows asked for.
    """
    records = [*train, *held_out]
    words = [wording(record.question) for record in records]
    about: dict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        about[record.image].append(place)
    shared = [places for places in about.values() if places[0] < len(train) <= places[-1]]
    if not shared:
        return []
    vectors = _vectors(words)
    found = set()
    for places in shared:
        split = sum(place < len(train) for place in places)
        asked_as: dict[str, list[int]] = defaultdict(list)
        for place in places[:split]:
            asked_as[words[place]].append(place)
        for row, column, similarity in _near([records[place] for place in places], split, vectors[places]):
            own, other = words[places[row]], words[places[column]]
            for place in asked_as[own]:
                found.add(Rewording(place, places[column] - len(train), similarity, own == other))
    return sorted(found, key=lambda one: (one.train, one.held_out))


def _near(records: Sequence[VQARecord], split: int, vectors: Any) -> Iterator[tuple[int, int, float]]:  # noqa: ANN401
    """The pairs among the rows about one image, of which the first `split` are of train."""
    own = np.array([wording(record.question) for record in records], dtype=object)
    types = np.array([record.question_type for record in records], dtype=object)
    accepted = _accepted(records)
    for start in range(0, split, _BLOCK):
        block = slice(start, min(start + _BLOCK, split))
        similar: NDArray[np.float64] = (vectors[block] @ vectors.T).toarray()
        equal = own[block, None] == own[None]
        same = (accepted[block] @ accepted.T > 0) & (types[block, None] == types[None])
        rivals = np.where(same[:, :split] & ~equal[:, :split], similar[:, :split], 0.0)
        asked = similar[:, split:]
        nearest = asked >= rivals.max(axis=1, keepdims=True)
        reworded = same[:, split:] & ((asked >= NEAR) | ((asked >= LEAST) & nearest))
        for row, column in np.argwhere(reworded | equal[:, split:]):
            yield start + int(row), split + int(column), float(round(min(asked[row, column], 1.0), 6))


def _accepted(records: Sequence[VQARecord]) -> NDArray[np.float32]:
    """Which of their answers each row accepts, (N, answers): the product of two rows counts those that they share."""
    places = {answer: place for place, answer in enumerate(dict.fromkeys(a for one in records for a in one.accepted))}
    table = np.zeros((len(records), len(places)), dtype=np.float32)
    for row, record in enumerate(records):
        table[row, [places[answer] for answer in record.accepted]] = 1
    return table


def _vectors(words: Sequence[str]) -> Any:  # noqa: ANN401 - scipy has no types
    """A unit vector for each text, (N, terms): the product of two is the mean of the cosines of words and of parts."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer  # not above: it takes a second, and few need it

    of_words = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True)
    of_parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return hstack([half.fit_transform(words) for half in (of_words, of_parts)]).tocsr() * np.sqrt(0.5)
