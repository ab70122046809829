"""Classification of an image with its text: records, batches, classes."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich.table import Table

from datamodules.base import ImageTextDataModule
from datamodules.baselines import most_frequent
from datamodules.collate import ImageTextCollate
from datamodules.loading import Item
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.summary import Summary, per_cent
from umd.batch import ClassificationBatch, ImageTextBatch
from umd.files import UserError


@dataclass(frozen=True, slots=True)
class ClassificationRecord:
    """One image and its text, with a label.

    Attributes:
        sample_id: The row's name, unique in its split.
        image: Path of the image, relative to the data set's root.
        text: A caption, or whatever is known beside the image.
        label: Name of the class; "" where the data set does not give it, as the test split of a challenge does.
    """

    sample_id: str
    image: str
    text: str
    label: str

    @property
    def alternative_texts(self) -> tuple[str, ...]:
        """None: a text is used as it is."""
        return ()


class ClassificationCollate(ImageTextCollate):
    """Builds a `ClassificationBatch` of items whose records are `ClassificationRecord`s."""

    def __call__(self, items: Sequence[Item[Any]]) -> ClassificationBatch:
        """The batch of these items, in their order."""
        batch = super().__call__(items)
        return ClassificationBatch(
            **{field.name: getattr(batch, field.name) for field in fields(batch)},
            labels=tuple(item.record.label for item in items),
        )


class ClassificationDataModule(ImageTextDataModule[ClassificationRecord]):
    """Images with texts, each of one class. Subclasses add `title`, `layout` and `read_published`.

    The classes are those of the training split; a test row of another class is kept, and counts as wrong. A training
    row without a class is left out; in validation and test its class is predicted, and does not count.
    """

    truths = "classes"

    label: str = "label"
    """What is classified by, in messages and tables."""

    @abstractmethod
    def read_published(self, problems: Problems) -> dict[Split, list[ClassificationRecord]]:
        """Reads the splits as published.

        Args:
            problems: Takes rows that cannot be used.

        Raises:
            UserError: Not one split is there; `nothing_found` words it.
        """

    def read(self, problems: Problems) -> dict[Split, list[ClassificationRecord]]:
        """The splits as published; rows of a class that train lacks are counted."""
        splits = self.read_published(problems)
        if "train" in splits:
            for record in splits["train"]:
                if not record.label:
                    problems.add("train row without a class, left out", f"{record.sample_id} ({record.image})")
            splits["train"] = [record for record in splits["train"] if record.label]
            known = {record.label for record in splits["train"]}
            for split in splits.keys() - {"train"}:
                for record in splits[split]:
                    if record.label and record.label not in known:
                        problems.add(
                            f"{split} row whose {self.label} does not occur in train, kept (it counts as wrong)",
                            f"{record.sample_id} ({record.label})",
                        )
        return splits

    def has_truth(self, record: ClassificationRecord) -> bool:
        """Whether the row has a class."""
        return bool(record.label)

    def told(self, record: ClassificationRecord) -> str:
        """Class and text."""
        return f"{record.label or '(no class)'}\n{record.text}"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the training split, sorted; those of the other splits do not count.

        Raises:
            UserError: There is no training split.
        """
        if not self.has_split("train"):
            raise UserError(f"{self.title}: the classes are those of the train split, which {self.root} lacks")
        return tuple(sorted({record.label for record in self._read()["train"]}))

    def make_collate(self) -> Callable[[Sequence[Item[Any]]], ImageTextBatch]:
        """What turns a list of items into a `ClassificationBatch`."""
        return ClassificationCollate(self.tokenizer, self.text_length)

    @property
    def description(self) -> dict[str, str]:
        """Data set, what is classified by, rows of each split that was used, and rows of a class not in train."""
        sizes = super().description
        description = {"data": sizes.pop("data"), "label": self.label, **sizes}
        if self.has_split("train"):
            known = set(self.classes)
            for split in self._usable.keys() - {"train"}:
                if unknown := sum(bool(record.label) and record.label not in known for record in self._usable[split]):
                    description[f"{split} of a class not in train, counted as wrong"] = str(unknown)
        return description

    def summary(self) -> Summary:
        """Adds the rows of each class, what the most frequent class reaches, and a row for each test row.

        Raises:
            UserError: There is no training split to take classes from, or a split has no usable row.
        """
        summary = super().summary()
        majority = most_frequent(record.label for record in self.records("train"))
        known = set(self.classes)
        summary.facts["label"] = self.label
        for split, counts in summary.splits.items():
            labels = Counter(record.label for record in self.records(split) if record.label)
            counts["classes"] = dict(sorted(labels.items()))
        summary.tables.append(
            _class_table(self.label, {split: counts["classes"] for split, counts in summary.splits.items()})
        )
        if "test" not in summary.splits:
            return summary
        test = self.records("test")
        right = per_cent(record.label == majority for record in test if record.label)
        reachable = per_cent(record.label in known for record in test if record.label)
        summary.facts["test"] = {
            "most_frequent_label": majority,
            "most_frequent_label_accuracy": right,
            "ceiling": reachable,
        }
        if right is not None:
            summary.tables.append(
                f"most frequent label of train: {majority}, right on {right:.1f} % of the test rows "
                f"(ceiling {reachable:.1f} %)"
            )
        summary.test_file = "test_rows.csv"
        summary.test_rows = [
            {"index": index, "sample_id": record.sample_id, "label": record.label, "most_frequent_label": majority}
            for index, record in enumerate(test)
        ]
        return summary


def _class_table(label: str, counts: Mapping[Split, Mapping[str, int]]) -> Table:
    table = Table(title=f"Rows of each class ({label})", title_justify="left")
    table.add_column("class", overflow="fold")
    for split in counts:
        table.add_column(split, justify="right")
    for name in sorted({name for of_split in counts.values() for name in of_split}):
        table.add_row(name, *(f"{of_split.get(name, 0):,}" for of_split in counts.values()))
    return table
