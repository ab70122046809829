"""Where an answer comes from: the patches of the image and the words of the text that it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from umd.inference.network import Inputs
from umd.inference.reply import Reply

Method = Literal["attention", "gradient"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a network says of one pair.

    Attributes:
        patches: (G, G), a number for each patch of the image; None for a model without images.
        tokens: (L,), a number for each token of the text.
    """

    patches: NDArray[np.float32] | None
    tokens: NDArray[np.float32]


@runtime_checkable
class Explains(Protocol):
    """A network that can say where its scores come from."""

    def attribute(self, inputs: Inputs, number: int, method: Method, mask_token_id: int) -> Attribution:
        """Where the score of name `number` for a single pair comes from.

        Args:
            inputs: one pair.
            number: which of the names' scores; 0 in retrieval.
            method: see `Explanation`.
            mask_token_id: the token that stands for a hidden word.
        """
        ...


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the text.

    Attributes:
        text: as it was written.
        weight: see `Explanation`.
    """

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one answer comes from.

    By "attention", weights are shares: those of the patches add up to one, and so do those of the words. They tell
    what is looked at, for whichever answer (the answer decoder's are of the answer). By "gradient", weights are what a
    patch or word adds to the answer's score, or takes from it; those of the patches add up to the score minus that of
    a blank image, those of the words to the score minus that of a text of hidden words.

    Attributes:
        reply: all that the model said.
        answer: which of its answers is explained.
        method: how.
        pixels: (3, S, S) uint8, the image as the model saw it.
        patches: (G, G) weights, row by row from the top left, of squares from the top left on; None for a model
            without images.
        words: the words of the text that were read, in their order.
    """

    reply: Reply
    answer: str
    method: Method
    pixels: NDArray[np.uint8]
    patches: NDArray[np.float32] | None
    words: tuple[Word, ...]


def of_words(tokens: NDArray[np.float32], word_ids: NDArray[np.int64], words: list[str]) -> tuple[Word, ...]:
    """The weights of tokens as those of the words that they are parts of; special tokens are left out.

    Args:
        tokens: (L,) weights.
        word_ids: (L,) numbers of words, -1 at special tokens.
        words: the words, by number.
    """
    read = sorted({int(number) for number in word_ids if number >= 0})
    return tuple(Word(words[number], float(tokens[word_ids == number].sum())) for number in read)
