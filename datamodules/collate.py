"""From items to batches: stacking, tokenising, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from datamodules.loading import Item
from umd.batch import ImageTextBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LENGTH_STEP = 8
"""Texts are padded to a multiple of this many tokens, so that few different shapes occur."""


class TokenTensors(TypedDict):
    """The token fields of a batch, each (B, L); see `umd.batch.ImageTextBatch`."""

    input_ids: Tensor
    attention_mask: Tensor
    special_tokens_mask: Tensor
    word_ids: Tensor


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], text_length: int) -> TokenTensors:
    """B texts as token ids, cut to `text_length` tokens and padded on the right.

    L is the longest text's length, rounded up to a multiple of `LENGTH_STEP`, at most `text_length`. A
    special token that a text spells out ("[MASK]") is marked as special too; the unknown token is an ordinary
    one.
    """
    encoded = tokenizer(list(texts), truncation=True, max_length=text_length, padding=False)
    ids: list[list[int]] = encoded["input_ids"]
    longest = max(len(row) for row in ids)
    length = min(text_length, -(-longest // LENGTH_STEP) * LENGTH_STEP)
    special_ids = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    pad = int(tokenizer.pad_token_id)
    input_ids = torch.full((len(ids), length), pad)
    attention_mask = torch.zeros(len(ids), length, dtype=torch.bool)
    special_tokens_mask = torch.ones(len(ids), length, dtype=torch.bool)
    word_ids = torch.full((len(ids), length), -1)
    for row, tokens in enumerate(ids):
        words = [-1 if word is None else word for word in encoded.word_ids(row)]
        special = [word < 0 or token in special_ids for token, word in zip(tokens, words, strict=True)]
        input_ids[row, : len(tokens)] = torch.tensor(tokens)
        attention_mask[row, : len(tokens)] = True
        special_tokens_mask[row, : len(tokens)] = torch.tensor(special)
        word_ids[row, : len(tokens)] = torch.tensor(words)
    word_ids[special_tokens_mask] = -1
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "special_tokens_mask": special_tokens_mask,
        "word_ids": word_ids,
    }


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
        return ImageTextBatch(
            image=torch.stack([item.image for item in items]),
            **tokenize(self.tokenizer, texts, self.text_length),
            mask_token_id=int(self.tokenizer.mask_token_id),
            index=torch.tensor([item.index for item in items]),
            sample_ids=tuple(item.record.sample_id for item in items),
            texts=texts,
            image_names=tuple(item.record.image for item in items),
        )
