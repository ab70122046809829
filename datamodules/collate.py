"""From items to batches: stacking, tokenising, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from datamodules.loading import Item
from datamodules.tokens import token_arrays
from umd.batch import ImageTextBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TokenTensors(TypedDict):
    """The token fields of a batch, each (B, L); see `umd.batch.ImageTextBatch`."""

    input_ids: Tensor
    attention_mask: Tensor
    special_tokens_mask: Tensor
    word_ids: Tensor


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], text_length: int) -> TokenTensors:
    """B texts as token ids, cut to `text_length` tokens and padded on the right; see `token_arrays`.

    A special token that a text spells out ("[MASK]") is marked as special too; the unknown token is an ordinary one.
    """
    encoded = tokenizer(list(texts), truncation=True, max_length=text_length, padding=False)
    special_ids = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    arrays = token_arrays(encoded.encodings or [], special_ids, int(tokenizer.pad_token_id), text_length)
    return {
        "input_ids": torch.from_numpy(arrays["input_ids"]),
        "attention_mask": torch.from_numpy(arrays["attention_mask"]),
        "special_tokens_mask": torch.from_numpy(arrays["special_tokens_mask"]),
        "word_ids": torch.from_numpy(arrays["word_ids"]),
    }


def distinct(images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """The different ones of B images as (U, 3, S, S), and (B,) int64 which of them each is; None: all differ.

    Those that are one tensor are one image; pixels are not compared.
    """
    place: dict[int, int] = {}
    index = [place.setdefault(id(image), len(place)) for image in images]
    if len(place) == len(images):
        return torch.stack(list(images)), None
    return torch.stack([images[index.index(number)] for number in range(len(place))]), torch.tensor(index)


class ImageTextCollate:
    """Builds an `ImageTextBatch` of items.

    Args:
        tokenizer: A fast tokenizer with a padding and a mask token.
        text_length: Most tokens of a text, special tokens included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text_length: int) -> None:
        self.tokenizer = tokenizer
        self.text_length = text_length

    def __call__(self, items: Sequence[Item[Any]]) -> ImageTextBatch:
        """The batch of these items, in their order."""
        texts = tuple(item.text for item in items)
        image, image_index = distinct([item.image for item in items])
        return ImageTextBatch(
            image=image,
            image_index=image_index,
            **tokenize(self.tokenizer, texts, self.text_length),
            mask_token_id=int(self.tokenizer.mask_token_id),
            index=torch.tensor([item.index for item in items]),
            sample_ids=tuple(item.record.sample_id for item in items),
            texts=texts,
            image_names=tuple(item.record.image for item in items),
        )
