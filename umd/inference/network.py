"""What lies between preparing and answering: arrays in, scores out, whatever computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Task = Literal["answering", "classification", "retrieval", "pretraining"]
"""What a checkpoint was trained for, and so which questions it answers."""

Link = Literal["sigmoid", "softmax", "exp"]
"""How scores become probabilities: each name's own, all names' together, or from a log-likelihood."""

SEPARATE = "Each answer has a probability of its own: they need not sum to 1."
"""What a reader of sigmoids must know."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """B pairs as a network reads them: the arrays of an `umd.batch.ImageTextBatch` that decide on an answer.

    Attributes:
        image: (U, 3, S, S) uint8.
        input_ids: (B, L) int64 token ids, padded on the right.
        attention_mask: (B, L) bool, True at real tokens.
        word_ids: (B, L) int64, number of the word that a token belongs to, -1 at special tokens.
        image_index: (B,) int64, which of the U images each pair has; None: each has its own, U = B.
    """

    image: NDArray[np.uint8]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    word_ids: NDArray[np.int64]
    image_index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What must be known of a model beside its weights and its tokenizer; plain values, as JSON can hold them.

    Attributes:
        source: the file or folder that it was loaded from, for messages.
        stage: the public name of the class that was trained: "umd.VQAClassifier".
        task: what it was trained for.
        names: the answers or classes that it chooses from, in the order of its scores; none elsewhere.
        link: how its scores become probabilities.
        temperature: what they are divided by before; 1 where none was fitted.
        image_size: pixels along the side of the square image.
        text_length: most tokens of a text, special tokens included.
        blank: the colour (red, green, blue; 0..255) that stands for no image: the mean of what its encoder expects.
    """

    source: str
    stage: str
    task: Task
    names: tuple[str, ...]
    link: Link
    image_size: int
    text_length: int
    blank: tuple[int, int, int]
    temperature: float = 1.0

    @property
    def remark(self) -> str:
        """What must be said beside its probabilities; "" where they are shares of one."""
        return SEPARATE if self.link == "sigmoid" else ""


class Network(Protocol):
    """Anything that scores prepared pairs: a stage of this project, or one that was exported."""

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """Score B pairs.

        Returns:
            (B, A) with a score for each name, minus infinity where one was not considered; for retrieval (B, 1),
            how well each pair goes together.
        """
        ...


@runtime_checkable
class Embeds(Protocol):
    """A network that gives the vectors of its encoders of one modality, before they are fused."""

    comparable: bool
    """Whether images and texts were trained into one space; their vectors are of unit length then."""

    def embed_images(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 3, S, S) into (B, D)."""
        ...

    def embed_texts(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(B, L) into (B, D)."""
        ...


def probabilities(scores: NDArray[np.float32], link: Link, temperature: float = 1.0) -> NDArray[np.float32]:
    """(B, A) scores as probabilities, divided by the temperature before; "softmax" goes over the last axis."""
    scores = scores / np.float32(temperature)
    if link == "sigmoid":
        tail = np.exp(-np.abs(scores))  # in 0..1, so nothing overflows
        likely = np.where(scores >= 0, 1, tail) / (1 + tail)
    elif link == "exp":
        likely = np.exp(scores)
    else:
        parts = np.exp(scores - scores.max(-1, keepdims=True))
        likely = parts / parts.sum(-1, keepdims=True)
    return np.asarray(likely, dtype=np.float32)
