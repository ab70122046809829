"""What a model says to one image and one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umd.inference.network import Link, probabilities


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the things that a model could say.

    Attributes:
        text: the answer, the class, or in retrieval the text that was offered.
        probability: how sure the model is, 0..1. Of a classifier over answers each answer's own (they do not sum to
            one), of classes and of texts to choose from their share, of a written answer its likelihood.
        score: what the order goes by: a logit or a log-likelihood.
    """

    text: str
    probability: float
    score: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model says to one image and one text.

    Attributes:
        image: the image's path, or "" where it was none.
        text: the question, or what was read beside the image; "" in retrieval, where the texts are the answers.
        answers: the likeliest first.
        cut: whether the text was longer than the model reads, and its end was not seen.
    """

    image: str
    text: str
    answers: tuple[Answer, ...]
    cut: bool = False

    @property
    def best(self) -> Answer:
        """The likeliest answer."""
        return self.answers[0]


def ranked(
    scores: NDArray[np.float32], names: Sequence[str], link: Link, top: int, temperature: float = 1.0
) -> tuple[Answer, ...]:
    """The `top` names of one (A,) row of scores, the highest first; of equal ones the one that is named first.

    Names that were not considered are left out. The temperature has a part in probabilities alone, not in the order.
    """
    likely = probabilities(scores[None], link, temperature)[0]
    order = [place for place in np.argsort(-scores, kind="stable")[:top] if scores[place] > -np.inf]
    return tuple(Answer(names[place], float(likely[place]), float(scores[place])) for place in order)
