"""What travels from a data module to a module: frozen, typed, told to move between devices by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTextBatch:
    """B pairs of an image and a text.

    Attributes:
        image: (U, 3, H, W) uint8 in 0..255, or float already scaled to 0..1. Normalisation belongs to the encoder.
        image_index: (B,) int64, which of the U images each pair has; None: each has its own, U = B.
        input_ids: (B, L) int64 token ids, padded on the right.
        attention_mask: (B, L) bool, True at real tokens (special tokens included, padding not).
        special_tokens_mask: (B, L) bool, True where masking must never fall (start, end, padding).
        word_ids: (B, L) int64, number of the word that a token belongs to, -1 at special tokens.
        mask_token_id: the tokenizer's mask token.
        index: (B,) int64, place of the sample in its split; counts each sample once when ranks repeat some.
        sample_ids: B names of the samples, for messages and tables.
        texts: B texts as they were before tokenisation.
        image_names: B paths of the images, relative to the data set's root.
    """

    image: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    special_tokens_mask: Tensor
    word_ids: Tensor
    mask_token_id: int
    index: Tensor
    sample_ids: tuple[str, ...]
    texts: tuple[str, ...]
    image_names: tuple[str, ...]
    image_index: Tensor | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def per_pair(self, of_images: Tensor) -> Tensor:
        """What belongs to the images, (U, ...), for each of the pairs, (B, ...)."""
        return of_images if self.image_index is None else of_images.index_select(0, self.image_index)

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> Self:
        """The same batch with every tensor on `device`.

        Lightning calls this, and passes `non_blocking` on to bare tensors only. Without it nobody waits for a copy to
        an accelerator; one to the CPU is waited for, since its values may be read at once, and so is one to MPS.
        """
        if non_blocking is None:
            non_blocking = torch.device(device).type not in ("cpu", "mps")
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory (the DataLoader calls this)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        tensors: dict[str, Any] = {
            field.name: function(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class VQABatch(ImageTextBatch):
    """B questions about images; `texts` are the questions.

    Attributes:
        answers: B true answers after VQA normalisation (method: lower case, articles, punctuation, numbers); of several
            accepted ones the first. "" where none is known: such a question is answered, and never trained on.
        accepted: all answers of each question that count as right, the first one first; () where none is known.
        published_answers: B first answers as the data set gives them, "" where it gives none.
        answer_input_ids: (B, M) int64 token ids of the answers, start and end token included, padded on the right.
        answer_attention_mask: (B, M) bool, True at real tokens.
        closed: (B,) bool, True for a closed question (yes / no and the like), False for an open one.
        closed_by_answer: for each question, whether its answer alone tells if it is closed, so that without one nobody
            knows, and `closed` says False.
        has_twin: (B,) bool, True where the field's training split holds a twin of it (see `datamodules.vqa_rad`).
        question_types: B names of the question's type as the data set gives it ("" where it gives none).
    """

    answers: tuple[str, ...]
    accepted: tuple[tuple[str, ...], ...]
    published_answers: tuple[str, ...]
    answer_input_ids: Tensor
    answer_attention_mask: Tensor
    closed: Tensor
    closed_by_answer: tuple[bool, ...]
    has_twin: Tensor
    question_types: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationBatch(ImageTextBatch):
    """B pairs with one label each.

    Attributes:
        labels: B names of the true classes, "" where one is not known: such a pair is classified, never trained on.
    """

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalBatch(ImageTextBatch):
    """B matching pairs, each with N negatives: texts of the same split that do not belong to its image.

    Attributes:
        negative_input_ids: (B, N, L) int64; N = 0 where nothing is trained.
        negative_attention_mask: (B, N, L) bool.
    """

    negative_input_ids: Tensor
    negative_attention_mask: Tensor
