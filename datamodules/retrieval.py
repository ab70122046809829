"""Image-text retrieval: pairs, and in training negatives beside each of them."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from torch import Tensor

from datamodules.arguments import LoaderArguments, Unpack, check_least
from datamodules.base import ImageTextDataModule
from datamodules.captions import CaptionRecord
from datamodules.collate import ImageTextCollate, tokenize
from datamodules.loading import EndlessSequence, Item
from datamodules.problems import Problems
from datamodules.records import Split
from umd.batch import ImageTextBatch, RetrievalBatch
from umd.files import UserError

SHUFFLE_SEED = 42
"""Of the shuffle before the first test pairs are taken, as the field does it; not the training seed."""

NEGATIVES_STREAM = 1
"""Keeps the choice of the negatives apart from the augmentation, which has the same seed."""


@dataclass(frozen=True, slots=True)
class RetrievalItem(Item[CaptionRecord]):
    """An item with texts that do not belong to it.

    Attributes:
        negatives: N texts of other rows of the split.
    """

    negatives: tuple[str, ...]


class PairsWithNegatives(EndlessSequence[CaptionRecord]):
    """Pairs, each with negatives, texts of other rows of the split, drawn by (seed, pass, row).

    The negatives of an item differ from each other and from its own text, upper and lower case aside.

    Args:
        pairs: The pairs.
        number: Negatives a pair.

    Raises:
        UserError: The split has too few different texts.
    """

    def __init__(self, pairs: EndlessSequence[CaptionRecord], number: int) -> None:
        super().__init__(
            pairs.records,
            pairs.paths,
            pairs.load,
            pairs.transform,
            seed=pairs.seed,
            vary_text=pairs.vary_text,
            one_view=pairs.one_view,
        )
        self.number = number
        texts: dict[str, str] = {}
        for record in self.records:
            texts.setdefault(record.text.casefold(), record.text)
        if len(texts) <= number:
            raise UserError(
                f"negatives: {number} a pair need at least {number + 1} different texts in the training split, "
                f"which has {len(texts)}"
            )
        places = {text: place for place, text in enumerate(texts)}
        self.own = [places[record.text.casefold()] for record in self.records]
        self.texts = tuple(texts.values())

    def item(self, key: int, seen: dict[str, Tensor]) -> RetrievalItem:
        """As for every split, with the negatives."""
        item = super().item(key, seen)
        epoch, index = divmod(key, len(self.records))
        generator = np.random.default_rng((self.seed, epoch, index, NEGATIVES_STREAM))
        chosen = generator.choice(len(self.texts) - 1, self.number, replace=False)
        chosen += chosen >= self.own[index]
        negatives = tuple(self.texts[place] for place in chosen)
        return RetrievalItem(item.record, item.image, item.text, item.index, negatives)


class RetrievalCollate(ImageTextCollate):
    """Builds a `RetrievalBatch`; items that are no `RetrievalItem`s have no negatives."""

    def __call__(self, items: Sequence[Item[Any]]) -> RetrievalBatch:
        """The batch of these items, in their order; all texts are padded to one length."""
        batch = super().__call__(items)
        negatives = [text for item in items if isinstance(item, RetrievalItem) for text in item.negatives]
        tokens = cast(dict[str, Tensor], tokenize(self.tokenizer, [*batch.texts, *negatives], self.text_length))
        own = {name: tensor[: len(items)] for name, tensor in tokens.items()}
        shape = (len(items), len(negatives) // len(items), tokens["input_ids"].shape[1])
        return RetrievalBatch(
            **{field.name: getattr(batch, field.name) for field in fields(batch)} | own,
            negative_input_ids=tokens["input_ids"][len(items) :].reshape(shape),
            negative_attention_mask=tokens["attention_mask"][len(items) :].reshape(shape),
        )


class RetrievalDataModule(ImageTextDataModule[CaptionRecord]):
    """Pairs to be found among others. Subclasses add `title`, `layout` and `read_published`.

    A training pair comes with negatives, texts of other pairs of the training split. Validation and test are the
    first pairs whose image is usable after a shuffle with seed 42 (UMD, section 4.1.2, as released), without
    negatives.

    Args:
        root: Folder of the data set, in its published layout.
        negatives: Texts of other pairs that a training pair comes with; 0: none, as for TD-Calib.
        validation_pairs: Most pairs in validation.
        test_pairs: Most pairs in test.
        minimum_words: Pairs whose caption has fewer words are left out, in all splits.
        text_length: Most tokens of a caption.
        **loader: As in `ImageTextDataModule`; `seed` is also that of the choice of the negatives.

    Raises:
        UserError: An argument is out of its range.
    """

    def __init__(
        self,
        root: str,
        *,
        negatives: int = 15,
        validation_pairs: int = 2000,
        test_pairs: int = 2000,
        minimum_words: int = 3,
        text_length: int = 64,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        check_least(0, negatives=negatives)
        check_least(1, validation_pairs=validation_pairs, test_pairs=test_pairs, minimum_words=minimum_words)
        super().__init__(root, text_length=text_length, **loader)
        self.negatives = negatives
        self.minimum_words = minimum_words
        self._most: dict[Split, int] = {"validation": validation_pairs, "test": test_pairs}
        self._too_short: dict[Split, int] = {}

    @abstractmethod
    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the splits as published.

        Args:
            problems: Takes rows that cannot be used.

        Raises:
            UserError: Not one split is there; `nothing_found` words it.
        """

    def most_rows(self, split: Split) -> int | None:
        """The number of pairs asked for, in validation and test."""
        return self._most.get(split)

    def read(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """The pairs whose captions are long enough; those of validation and test shuffled with seed 42."""
        splits = self.read_published(problems)
        for split, records in splits.items():
            if split in self._most:
                random.Random(SHUFFLE_SEED).shuffle(records)
            splits[split] = [record for record in records if len(record.text.split()) >= self.minimum_words]
            self._too_short[split] = len(records) - len(splits[split])
        return splits

    def no_usable_row(self, split: Split, problems: Problems) -> UserError:
        """The error for a split of which nothing is left; counts the captions that were too short."""
        error = super().no_usable_row(split, problems)
        if not (short := self._too_short.get(split)):
            return error
        told = f"{short:,} captions of fewer than {self.minimum_words} words, left out (--data.minimum_words)"
        if not problems.counts:
            return UserError(f"the {split} split has no usable row (root {self.root}). {self.title}: {told}")
        return UserError(f"{error}; {told}")

    def make_collate(self) -> Callable[[Sequence[Item[Any]]], ImageTextBatch]:
        """What turns a list of items into a `RetrievalBatch`."""
        return RetrievalCollate(self.tokenizer, self.text_length)

    @property
    def description(self) -> dict[str, str]:
        """Data set, pairs of each split that was used, how they were chosen, and captions that were too short."""
        description = super().description
        for split in self._usable:
            if split in self._most and self._looked_at[split] < len(self._read()[split]):
                description[split] += f", the first after a shuffle with seed {SHUFFLE_SEED}"
        if short := sum(self._too_short[split] for split in self._usable):
            description[f"captions of fewer than {self.minimum_words} words, left out"] = str(short)
        return description

    def _dataset(self, split: Split, *, training: bool) -> EndlessSequence[CaptionRecord]:
        pairs = super()._dataset(split, training=training)
        return PairsWithNegatives(pairs, self.negatives) if training and self.negatives else pairs
