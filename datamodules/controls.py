"""A question asked otherwise: about nothing, about another image, in no order; what the answer owes to either shows.

A change takes an item before it is collated, so that what follows is the same as for the question itself. What is drawn
depends on a seed and the place of the question in its split alone, not on batches, workers or ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.loading import EndlessSequence, Item
from datamodules.questions import VQARecord

Question = Item[VQARecord]
Change = Callable[[Question], Question]


class Changed(Dataset[Question]):
    """A split, each of its questions changed.

    Args:
        questions: The split.
        change: What is done to each.
    """

    def __init__(self, questions: EndlessSequence[VQARecord], change: Change) -> None:
        self.questions = questions
        self.change = change

    def __getitem__(self, key: int) -> Question:
        return self.change(self.questions[key])

    def __getitems__(self, keys: Sequence[int]) -> list[Question]:
        """The questions of a batch; what stays unchanged, they share."""
        return [self.change(question) for question in self.questions.__getitems__(keys)]


class OneImage:
    """The same image in the place of each.

    Args:
        image: (3, S, S) uint8, or float in 0..1.
    """

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __call__(self, question: Question) -> Question:
        """The question about that image."""
        return replace(question, image=self.image)


class Noise:
    """Pixels without any structure in the place of each image: uniform in 0..255, each channel by itself.

    Args:
        seed: Of the drawing.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, question: Question) -> Question:
        """The question about noise."""
        random = np.random.default_rng((self.seed, question.index))
        pixels = random.integers(256, size=tuple(question.image.shape), dtype=np.uint8)
        return replace(question, image=torch.from_numpy(pixels))


class OtherImage:
    """An image of the split that goes by another name, each equally likely; the record names it.

    Args:
        questions: The split.
        seed: Of the drawing.

    Raises:
        ValueError: The split has one image.
    """

    def __init__(self, questions: EndlessSequence[VQARecord], seed: int = 0) -> None:
        self.questions = questions
        self.seed = seed
        self.place_of: dict[str, int] = {}
        for place, record in enumerate(questions.records):
            self.place_of.setdefault(record.image, place)
        self.images = list(self.place_of)
        if len(self.images) < 2:
            raise ValueError("questions: all are about one image")
        self.number_of = {image: number for number, image in enumerate(self.images)}

    def __call__(self, question: Question) -> Question:
        """The question about another image."""
        random = np.random.default_rng((self.seed, question.index))
        step = 1 + int(random.integers(len(self.images) - 1))
        image = self.images[(self.number_of[question.record.image] + step) % len(self.images)]
        shown = self.questions[self.place_of[image]].image
        return replace(question, image=shown, record=replace(question.record, image=image))


class ShuffledWords:
    """The words of each question in another order, its final mark at the end.

    A question whose words are all the same, or one, stays as it is.

    Args:
        seed: Of the drawing.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, question: Question) -> Question:
        """The question with its words shuffled."""
        body = question.text.rstrip(" ?.!")
        words, end = body.split(), question.text[len(body) :]
        random = np.random.default_rng((self.seed, question.index))
        shuffled = words
        while len(set(words)) > 1 and shuffled == words:
            shuffled = [words[place] for place in random.permutation(len(words))]
        return replace(question, text=" ".join(shuffled) + end)


class Reworded:
    """The twin of each question, about the same image, with the twin's own answer.

    Args:
        twins: The twin's record by the question's place in the split.
    """

    def __init__(self, twins: Mapping[int, VQARecord]) -> None:
        self.twins = twins

    def __call__(self, question: Question) -> Question:
        """The twin, at the question's place.

        Raises:
            KeyError: The question has none.
        """
        twin = self.twins[question.index]
        return replace(question, text=twin.text, record=twin)
