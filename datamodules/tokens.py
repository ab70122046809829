"""Texts as arrays of tokens, by `tokenizers` alone: what answers without torch reads a text with, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

LENGTH_STEP = 8
"""Texts are padded to a multiple of this many tokens, so that few different shapes occur."""


class TokenArrays(TypedDict):
    """The token fields of a batch, each (B, L); see `umd.batch.ImageTextBatch`."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    special_tokens_mask: NDArray[np.bool_]
    word_ids: NDArray[np.int64]


def token_arrays(
    encodings: Sequence[Encoding], special_ids: Collection[int], pad: int, text_length: int
) -> TokenArrays:
    """B encoded texts, padded on the right.

    L is the longest text's length, rounded up to a multiple of `LENGTH_STEP`, at most `text_length`.

    Args:
        encodings: the texts, cut to `text_length` tokens.
        special_ids: tokens that are special also where a text spells them out ("[MASK]").
        pad: the padding token.
        text_length: most tokens of a text.
    """
    longest = max(len(encoding.ids) for encoding in encodings)
    shape = (len(encodings), min(text_length, -(-longest // LENGTH_STEP) * LENGTH_STEP))
    arrays = TokenArrays(
        input_ids=np.full(shape, pad, dtype=np.int64),
        attention_mask=np.zeros(shape, dtype=np.bool_),
        special_tokens_mask=np.ones(shape, dtype=np.bool_),
        word_ids=np.full(shape, -1, dtype=np.int64),
    )
    for row, encoding in enumerate(encodings):
        tokens, real = encoding.ids, slice(len(encoding.ids))
        words = [-1 if word is None else word for word in encoding.word_ids]
        arrays["input_ids"][row, real] = tokens
        arrays["attention_mask"][row, real] = True
        arrays["special_tokens_mask"][row, real] = [
            word < 0 or token in special_ids for token, word in zip(tokens, words, strict=True)
        ]
        arrays["word_ids"][row, real] = words
    arrays["word_ids"][arrays["special_tokens_mask"]] = -1
    return arrays


class TextTokenizer:
    """A tokenizer out of its plain state; the tokens are those of `tokenization.tokenizer_from_state`.

    Args:
        state: from `tokenization.tokenizer_state`.
        text_length: most tokens of a text, special tokens included.
    """

    def __init__(self, state: Mapping[str, Any], text_length: int) -> None:
        self.text_length = text_length
        self._whole = Tokenizer.from_str(state["backend"])
        self._cutting = Tokenizer.from_str(state["backend"])
        self._cutting.enable_truncation(text_length)
        ids = {
            name: number
            for name, token in state["special_tokens"].items()
            if (number := self._whole.token_to_id(token)) is not None
        }
        self.pad_token_id, self.mask_token_id = ids["pad_token"], ids["mask_token"]
        # The unknown token is an ordinary one.
        self.special_ids = frozenset(number for name, number in ids.items() if name != "unk_token")

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """The texts, cut to `text_length` tokens."""
        return self._cutting.encode_batch(list(texts))

    def arrays(self, texts: Sequence[str]) -> TokenArrays:
        """B texts as a batch holds them."""
        return token_arrays(self.encode(texts), self.special_ids, self.pad_token_id, self.text_length)

    def count(self, text: str) -> int:
        """How many tokens a text has before it is cut."""
        return len(self._whole.encode(text).ids)
