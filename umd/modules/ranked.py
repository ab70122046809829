"""The likeliest names of each sample, with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

SHOWN = 5
"""How many names `predictions.csv` holds of each sample."""


class Ranked(NamedTuple):
    """One of the names that a model chooses from.

    Attributes:
        name: the answer or class.
        probability: what the model gives it, in 0..1.
    """

    name: str
    probability: float


def ranked(names: Sequence[str], scores: Tensor, probabilities: Tensor, most: int) -> list[list[Ranked]]:
    """The names of each sample with the highest scores, best first, of equal ones the first.

    Args:
        names: A of them.
        scores: (B, A); finer than probabilities, of which several may round to 1.
        probabilities: (B, A).
        most: how many of a sample.
    """
    order = scores.float().sort(dim=1, descending=True, stable=True).indices[:, :most]
    sure = probabilities.float().gather(1, order)
    return [
        [Ranked(names[number], probability) for number, probability in zip(*row, strict=True)]
        for row in zip(order.tolist(), sure.tolist(), strict=True)
    ]


def ranked_columns(word: str, of_samples: Sequence[Sequence[Ranked]]) -> dict[str, list[Any]]:
    """The same as columns: `answer_1`, `probability_1`, `answer_2`, ...; rounded to four places.

    Args:
        word: what the names are.
        of_samples: as many names of each sample.
    """
    columns: dict[str, list[Any]] = {}
    for place, of_place in enumerate(zip(*of_samples, strict=True), start=1):
        columns[f"{word}_{place}"] = [one.name for one in of_place]
        columns[f"probability_{place}"] = [round(one.probability, 4) for one in of_place]
    return columns
