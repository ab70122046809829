"""What a training would see: how long the texts are for its tokenizer, and single samples as its batches hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.table import Table
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

AT_ONCE = 10_000
"""Texts that are tokenised together."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as it lies on disk, and as a training gets it.

    Attributes:
        sample_id: The row's name.
        image_name: Path of the image, relative to the data set's root.
        told: What the data set says of the image, for a caption.
        original: The image as it is decoded.
        image: (3, S, S) uint8, after the training's transform.
        tokens: The text's tokens as the encoder reads them, special ones included.
    """

    sample_id: str
    image_name: str
    told: str
    original: Image.Image
    image: Tensor
    tokens: tuple[str, ...]


def text_lengths(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], most: int) -> dict[str, Any]:
    """How many tokens the texts have, special ones included: `median`, `longest`, and how many are `cut` at `most`."""
    lengths: list[int] = []
    for start in range(0, len(texts), AT_ONCE):
        encoded = tokenizer(list(texts[start : start + AT_ONCE]), truncation=False, verbose=False)
        lengths += map(len, encoded["input_ids"])
    cut = sum(length > most for length in lengths)
    return {"median": median(lengths), "longest": max(lengths), "cut": cut, "of": len(lengths)}


def lengths_table(lengths: Mapping[str, Mapping[str, Any]], tokenizer: str, most: int) -> Table:
    """The same for the terminal, by what the texts are."""
    table = Table(
        title=f"Tokens of tokenizer '{tokenizer}'; a text is cut at {most} (--data.text_length)", title_justify="left"
    )
    table.add_column("texts")
    for head in ("median", "longest", "cut"):
        table.add_column(head, justify="right")
    for name, found in lengths.items():
        share = f"{found['cut']:,} ({100 * found['cut'] / found['of']:.1f} %)"
        table.add_row(name, f"{found['median']:g}", f"{found['longest']:,}", share)
    return table


def spread(count: int, rows: int) -> list[int]:
    """Places of at most `count` rows, evenly spread over all of them."""
    return sorted({place * rows // count for place in range(count)})
