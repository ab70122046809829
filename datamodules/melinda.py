"""MELINDA (Wu et al., AAAI 2021): figures of biomedical papers with captions, classified by experiment method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import pandas as pd

from datamodules.base import ImageTextDataModule, Split
from datamodules.collate import ImageTextCollate
from datamodules.files import read_whole
from datamodules.loading import Item
from datamodules.problems import Problems
from umd.batch import ClassificationBatch, ImageTextBatch
from umd.files import UserError

Label = Literal["i_meth", "p_meth", "i_meth_label", "p_meth_label"]

SPLIT_FILES: dict[Split, str] = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}


@dataclass(frozen=True, slots=True)
class ClassificationRecord:
    """One image and its text, with a label.

    Attributes:
        sample_id: "file:row"; the first row below the header is 1.
        image: Path of the image, relative to the data set's root.
        text: The caption.
        label: Name of the class.
    """

    sample_id: str
    image: str
    text: str
    label: str

    @property
    def alternative_texts(self) -> tuple[str, ...]:
        """None: a caption is used as it is."""
        return ()


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """These columns of a CSV file, as text without outer blanks; an empty cell is "".

    Raises:
        UserError: The file is no UTF-8, no CSV, too large, or lacks a column; names the file and the place.
    """
    content = read_whole(path)
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    if (place := content.find(0)) >= 0:
        line = content.count(b"\n", 0, place) + 1
        raise UserError(f"{path}, line {line}: a NUL byte, so no CSV file")
    try:
        # The header is read as a row, so that a row with more cells than it has is an error and never shifts.
        rows = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig").fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is not a CSV file with a header: {error}") from error
    header = [name.strip() for name in rows.iloc[0]]
    if missing := [column for column in columns if column not in header]:
        named = " and no ".join(f"'{column}'" for column in missing)
        raise UserError(f"{path}: no column {named} (there: {', '.join(header)})")
    return pd.DataFrame({column: rows[header.index(column)].iloc[1:].str.split().str.join(" ") for column in columns})


class ClassificationCollate(ImageTextCollate):
    """Builds a `ClassificationBatch` of items whose records are `ClassificationRecord`s."""

    def __call__(self, items: Sequence[Item[Any]]) -> ClassificationBatch:
        """The batch of these items, in their order."""
        batch = super().__call__(items)
        return ClassificationBatch(
            **{field.name: getattr(batch, field.name) for field in fields(batch)},
            labels=tuple(item.record.label for item in items),
        )


class MELINDA(ImageTextDataModule[ClassificationRecord]):
    """MELINDA in its own splits, classified by one of its four columns of labels.

    The paper does not say which column its accuracies (UMD, Tables 3 and 5) are for; the default is the one of
    the released run script, `p_meth_label`, and the specificities of Table 5 are too low for 15 classes or more.

    Args:
        root: Folder with `melinda_images/`, train.csv, dev.csv and test.csv.
        label: Column to classify by: "i_meth" (85 classes in the published files), "p_meth" (45),
            "i_meth_label" (15) or "p_meth_label" (7).
        tokenizer: As in `ImageTextDataModule`, like all that follow.
        image_size: Pixels.
        text_length: Tokens.
        batch_size: Samples a device.
        num_workers: Processes a device.
        random_resized_crop: Train on random crops.
        cache: Folder for decoded images.
        seed: Of order and augmentation.

    Raises:
        UserError: An argument is out of its range.
    """

    title: ClassVar[str] = "MELINDA"
    layout: ClassVar[str] = "melinda_images/, train.csv, dev.csv and test.csv"

    def __init__(
        self,
        root: str,
        *,
        label: Label = "p_meth_label",
        tokenizer: str = "embedded",
        image_size: int = 64,
        text_length: int = 128,
        batch_size: int = 32,
        num_workers: int = 0,
        random_resized_crop: bool = True,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        if label not in get_args(Label):
            raise UserError(f"label must be one of {', '.join(get_args(Label))}, not '{label}'")
        super().__init__(
            root,
            tokenizer=tokenizer,
            image_size=image_size,
            text_length=text_length,
            batch_size=batch_size,
            num_workers=num_workers,
            random_resized_crop=random_resized_crop,
            cache=cache,
            seed=seed,
        )
        self.label: Label = label

    def read(self, problems: Problems) -> dict[Split, list[ClassificationRecord]]:
        """Reads the split files that are there.

        Raises:
            UserError: None of them is; or a file lacks a column, or is no CSV in UTF-8.
        """
        splits: dict[Split, list[ClassificationRecord]] = {
            split: self._records(name, problems) for split, name in SPLIT_FILES.items() if (self.root / name).is_file()
        }
        if not splits:
            raise self.nothing_found()
        if "train" in splits:
            known = {record.label for record in splits["train"]}
            for split in splits.keys() - {"train"}:
                for record in splits[split]:
                    if record.label not in known:
                        problems.add(
                            f"{split} row whose {self.label} does not occur in train, kept (it counts as wrong)",
                            f"{record.sample_id} ({record.label})",
                        )
        return splits

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of train.csv, sorted; those of the other splits do not count.

        Raises:
            UserError: There is no train.csv.
        """
        if not self.has_split("train"):
            raise UserError(f"{self.title}: the classes are those of train.csv, which {self.root} lacks")
        return tuple(sorted({record.label for record in self._read()["train"]}))

    def make_collate(self) -> Callable[[Sequence[Item[Any]]], ImageTextBatch]:
        """What turns a list of items into a `ClassificationBatch`."""
        return ClassificationCollate(self.tokenizer, self.text_length)

    @property
    def description(self) -> dict[str, str]:
        """Data set, label column, rows of each split that was used, and rows whose class is not in train."""
        sizes = super().description
        description = {"data": sizes.pop("data"), "label": self.label, **sizes}
        if self.has_split("train"):
            known = set(self.classes)
            for split in self._usable.keys() - {"train"}:
                if unknown := sum(record.label not in known for record in self._usable[split]):
                    description[f"{split} of a class not in train, counted as wrong"] = str(unknown)
        return description

    def _records(self, name: str, problems: Problems) -> list[ClassificationRecord]:
        records = []
        table = read_table(self.root / name, ("figure_file", "caption", self.label))
        for number, (figure, caption, label) in enumerate(table.itertuples(index=False), start=1):
            where = f"{name}:{number}"
            if lacking := [
                column for column, value in zip(table.columns, (figure, caption, label), strict=True) if not value
            ]:
                problems.add(f"row without {' and '.join(lacking)}, left out", where)
            else:
                records.append(ClassificationRecord(where, f"melinda_images/{figure}", caption, label))
        return records
