"""Data of one's own: a folder with a table for each split (see `datamodules.tables`) beside its images."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from datamodules.arguments import LoaderArguments, Unpack
from datamodules.base import ImageTextDataModule
from datamodules.captions import CaptionArguments, CaptionDataModule, CaptionRecord
from datamodules.classification import ClassificationDataModule, ClassificationRecord
from datamodules.images import ImageFile
from datamodules.problems import Problems
from datamodules.questions import VQARecord, mark_twins_by_text, vqa_record
from datamodules.records import RecordT, Split
from datamodules.retrieval import RetrievalDataModule
from datamodules.row_ids import KEYS, row_id
from datamodules.tables import LAYOUT, Tables
from datamodules.vqa import VQAArguments, VQADataModule
from umd.files import UserError

NO_ANSWERS = frozenset({"n/a", "#n/a", "na", "n.a.", "null", "nan", "-"})
"""What stands for no answer in tables of one's own, in small letters. "none" and "no" are answers."""


class InTables(ImageTextDataModule[RecordT]):
    """Rows in tables: what such data modules share. A task adds the names of its columns.

    Attributes:
        columns: What a table with a head must hold beside `image`.
    """

    columns: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    in_train: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[str, ...]] = ()

    @cached_property
    def tables(self) -> Tables:
        """The tables below `root`."""
        columns = ("image", *self.columns)
        return Tables(self.root, columns, optional=self.optional, in_train=self.in_train, lists=self.lists)

    def locate(self, image: str) -> ImageFile:
        """The file of an image name, or its place in a table."""
        return self.tables.locate(image)

    def nothing_found(self) -> UserError:
        """The error for a root without a table; says why pickles are none."""
        pickle = next((path for path in self.root.glob("**/*.p*kl*") if path.suffix in (".pkl", ".pickle")), None)
        if pickle is None:
            return super().nothing_found()
        return UserError(
            f"{self.title}: {pickle} is a pickle, and reading one runs whatever code its writer put into it, so it is "
            f"not read; bring a copy with {self.layout}"
        )


class OwnVQA(InTables[VQARecord], VQADataModule):
    """Questions of one's own: image, question, answer; optional id, answer_type, question_type.

    An answer may be a list of accepted ones (in CSV and TSV with "|" between them). Without answer_type, OPEN or
    CLOSED, a question is closed if it is answered yes or no. What stands for no answer ("N/A", "-") is none. Twins
    are found by their text: training rows with the image and, case and outer blanks aside, the question of a test row.

    Args:
        root: Folder with the tables and the images.
        name: What tables of results call the data; None: as the folder is called.
        **vqa: As in `VQADataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    layout = LAYOUT
    columns = ("question",)
    optional = ("id", *KEYS, "answer_type", "question_type")
    in_train = ("answer",)
    lists = ("answer",)
    no_answers: ClassVar[frozenset[str]] = NO_ANSWERS

    def __init__(self, root: str, *, name: str | None = None, **vqa: Unpack[VQAArguments]) -> None:
        self.title: str = name or _folder_name(root)
        super().__init__(root, **vqa)

    def read_published(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """The rows of the tables, twins marked.

        Raises:
            UserError: There is no table, or one cannot be read.
        """
        splits: dict[Split, list[VQARecord]] = {}
        for split, where, row in self.tables.rows(problems):
            name = row_id({"qid": row.get("id"), **row}) or where
            file = where.rpartition(":")[0]
            row["answer"] = self._given(row.get("answer"))
            record = vqa_record(row, problems, where=file, image_key="image", sample_id=name)
            splits.setdefault(split, []).extend([record] if record is not None else [])
        if not splits:
            raise self.nothing_found()
        if "train" in splits and "test" in splits:
            splits["train"], splits["test"] = mark_twins_by_text(splits["train"], splits["test"])
        return splits

    def _given(self, answer: object) -> object:
        """An answer, or a list of them, without what stands for none."""
        if isinstance(answer, list):
            return [given for one in answer if (given := self._given(one)) is not None]
        return None if isinstance(answer, str) and answer.strip().lower() in self.no_answers else answer

    @property
    def description(self) -> dict[str, str]:
        """As of all questions; where there are training and test rows, how twins were looked for."""
        description = super().description
        if self.has_split("train") and self.has_split("test"):
            description["twins"] = (
                "found by their text alone; rewordings are not looked for here (umd data --audit looks)"
            )
        return description


class OwnCaptions(InTables[CaptionRecord], CaptionDataModule):
    """Images with captions of one's own, for pre-training: image, caption.

    Args:
        root: Folder with the tables and the images.
        name: What tables of results call the data; None: as the folder is called.
        **captions: As in `CaptionDataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    layout = LAYOUT
    columns = ("caption",)

    def __init__(self, root: str, *, name: str | None = None, **captions: Unpack[CaptionArguments]) -> None:
        self.title = name or _folder_name(root)
        super().__init__(root, **captions)

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """The rows of the tables.

        Raises:
            UserError: There is no table, or one cannot be read.
        """
        return _captions(self, problems)


class OwnRetrieval(InTables[CaptionRecord], RetrievalDataModule):
    """Images with captions of one's own, to be found among others: image, caption; else as `RetrievalDataModule`.

    Args:
        root: Folder with the tables and the images.
        name: What tables of results call the data; None: as the folder is called.
        negatives: Texts of other pairs that a training pair comes with; 0: none, as for TD-Calib.
        validation_pairs: Most pairs in validation.
        test_pairs: Most pairs in test.
        minimum_words: Pairs whose caption has fewer words are left out, in all splits; 1: none.
        text_length: Most tokens of a caption.
        **loader: As in `ImageTextDataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    layout = LAYOUT
    columns = ("caption",)

    def __init__(
        self,
        root: str,
        *,
        name: str | None = None,
        negatives: int = 15,
        validation_pairs: int = 2000,
        test_pairs: int = 2000,
        minimum_words: int = 1,
        text_length: int = 64,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        self.title = name or _folder_name(root)
        super().__init__(
            root,
            negatives=negatives,
            validation_pairs=validation_pairs,
            test_pairs=test_pairs,
            minimum_words=minimum_words,
            text_length=text_length,
            **loader,
        )

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """The rows of the tables.

        Raises:
            UserError: There is no table, or one cannot be read.
        """
        return _captions(self, problems)


class OwnClassification(InTables[ClassificationRecord], ClassificationDataModule):
    """Images of one's own, each of one class: image, label; optional text.

    Args:
        root: Folder with the tables and the images.
        name: What tables of results call the data; None: as the folder is called.
        text_length: Most tokens of a text.
        **loader: As in `ImageTextDataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    layout = LAYOUT
    columns = ("label",)
    optional = ("text",)

    def __init__(
        self, root: str, *, name: str | None = None, text_length: int = 32, **loader: Unpack[LoaderArguments]
    ) -> None:
        self.title = name or _folder_name(root)
        super().__init__(root, text_length=text_length, **loader)

    def read_published(self, problems: Problems) -> dict[Split, list[ClassificationRecord]]:
        """The rows of the tables; a label may be a number.

        Raises:
            UserError: There is no table, or one cannot be read.
        """
        splits: dict[Split, list[ClassificationRecord]] = {}
        for split, where, row in self.tables.rows(problems):
            rows = splits.setdefault(split, [])
            image, label = _text(row.get("image")), _label(row.get("label"))
            if lacking := [column for column, value in (("image", image), ("label", label)) if not value]:
                problems.add(f"row without {' and '.join(lacking)}, left out", where)
            else:
                rows.append(ClassificationRecord(where, image, _line(row.get("text")), label))
        if not splits:
            raise self.nothing_found()
        return splits


def _captions(data: InTables[CaptionRecord], problems: Problems) -> dict[Split, list[CaptionRecord]]:
    """The rows with an image and a caption; others are counted."""
    splits: dict[Split, list[CaptionRecord]] = {}
    for split, where, row in data.tables.rows(problems):
        rows = splits.setdefault(split, [])
        image, caption = _text(row.get("image")), _line(row.get("caption"))
        if lacking := [column for column, value in (("image", image), ("caption", caption)) if not value]:
            problems.add(f"row without {' and '.join(lacking)}, left out", where)
        else:
            rows.append(CaptionRecord(where, image, caption))
    if not splits:
        raise data.nothing_found()
    return splits


def _text(value: object) -> str:
    """A text without outer blanks; "" for whatever is none."""
    return value.strip() if isinstance(value, str) else ""


def _line(value: object) -> str:
    """A text with single blanks; "" for whatever is none."""
    return " ".join(_text(value).split())


def _label(value: object) -> str:
    """The name of a class, which may be a number; "" for whatever is neither."""
    if isinstance(value, float):  # what tables make of whole numbers in a column with gaps
        return f"{value:g}" if math.isfinite(value) else ""
    return str(value) if isinstance(value, int) else _line(value)


def _folder_name(root: str) -> str:
    return Path(root).expanduser().absolute().name
