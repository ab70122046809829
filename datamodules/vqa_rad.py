"""VQA-RAD (Lau et al., Scientific Data 2018), from its original file or from the field's two.

The usual trainset.json is the 1,797 training rows of the original file plus the framed form of *all* rows,
test rows included, in the order of the original file; `qid` numbers them, together with the test rows, from
1. What a twin of a test question is, and how it is known: `datamodules.vqa_rad_twins`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, Literal

from datamodules.arguments import Unpack
from datamodules.files import read_rows
from datamodules.image_files import image_folder, without_ending
from datamodules.problems import Problems
from datamodules.questions import VQARecord, vqa_record
from datamodules.records import Split
from datamodules.row_ids import row_ids
from datamodules.split_names import find_splits, split_of
from datamodules.vqa import VQAArguments, VQADataModule
from datamodules.vqa_rad_twins import Twins, is_null, linked_rows, listed_twins, twin_pairs, twins_by_text
from umd.files import UserError

log = logging.getLogger(__name__)

SINGLE_FILE = "VQA_RAD Dataset Public.json"
TRAIN_FILE, TEST_FILE = "trainset.json", "testset.json"

IMAGE_FOLDERS = ("images", "VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "imgs")
"""As the field calls it, as OSF publishes it, and as others do."""

FRAMED = "frame"
"""The `phrase_type` of a training row that is the framed form of another row."""

Rows = list[dict[str, Any]]


def number_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[Rows, Rows]:
    """The field's training and test rows (with their `qid`), from the rows of the original file."""
    train: Rows = []
    test: Rows = []
    number = 0
    for row in rows:
        number += 1
        is_test = str(row.get("phrase_type")).startswith("test")
        (test if is_test else train).append({**row, "qid": number})
        if not is_null(row.get("question_frame")):
            number += 1
            train.append({**row, "qid": number, "question": row["question_frame"], "phrase_type": FRAMED})
    return train, test


def with_ids(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """The rows, each with its id as `qid`."""
    return [{**row, "qid": number} for row, number in zip(rows, row_ids(rows), strict=True)]


def in_order(rows: Iterable[dict[str, Any]]) -> Rows:
    """Rows with ids in the order of their numbers; those whose id is no number come last, in the order of the file."""

    def place(row: Mapping[str, Any]) -> tuple[bool, int, str]:
        digits = row["qid"].lstrip("0") if row["qid"].isascii() and row["qid"].isdecimal() else None
        return digits is None, len(digits or ""), digits or ""

    return sorted(rows, key=place)


def split_of_file(stem: str) -> Split | None:
    """The split that "trainset", "test", "valset" and the like stand for."""
    return split_of(stem.lower().removesuffix("set").rstrip("_- "))


class VQARAD(VQADataModule):
    """VQA-RAD: 314 images in train and 203 in test (all of them also in train), 3,064 and 451 questions.

    Under `clean` the 292 training rows that reword a test question are dropped; valset.json, a copy of the
    test split where it is found, is not read. Under `paper` validation is valset.json or, without it, the
    test split. Two further protocols are as `clean` but for their training rows: `hub`, the 1,793 of the Hugging
    Face copy (no framed forms, no row twice, none that equals a test row), so that figures on it can be compared;
    `disjoint`, the 1,152 of `clean` on images that the test split does not hold.

    Files of the second form that are not the published ones are one's own data: their twins are found by their
    text, and their validation file is read under each protocol, unless it is a copy of their test split.

    Args:
        root: Folder with `images/` (or `VQA_RAD Image Folder/`) and the annotations.
        annotations: "single" (the original file), "split" (trainset.json and testset.json, or train.json, test.json
            and the like), or "auto": the original file where it is present. Both give the same rows.
        **vqa: As in `VQADataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "VQA-RAD"
    layout = f"images/ and '{SINGLE_FILE}', or images/, {TRAIN_FILE} and {TEST_FILE}"
    protocols = ("clean", "paper", "hub", "disjoint")

    def __init__(
        self,
        root: str,
        *,
        annotations: Literal["auto", "single", "split"] = "auto",
        **vqa: Unpack[VQAArguments],
    ) -> None:
        if annotations not in ("auto", "single", "split"):
            raise UserError(f"annotations must be 'auto', 'single' or 'split', not '{annotations}'")
        super().__init__(root, **vqa)
        self.annotations = annotations
        self._said_which = False
        self._twins_found = ""
        self._left_out = ""
        self._twin_of: dict[tuple[str, str], VQARecord] = {}

    def read_published(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """Reads the annotations, in the order of the original file whichever form is read.

        Raises:
            UserError: Neither form is there, or not the one asked for; two files stand for one split; or the
                protocol is `hub` and the files are not the published ones, or do not say which rows are framed.
        """
        single = self.root / SINGLE_FILE
        if self.annotations == "single" or (self.annotations == "auto" and single.is_file()):
            if not single.is_file():
                raise self.nothing_found()
            if self.annotations == "auto" and (self.root / TRAIN_FILE).is_file() and not self._said_which:
                self._said_which = True  # an audit reads a second time
                log.info("%s: read from '%s', not from the %s beside it", self.title, SINGLE_FILE, TRAIN_FILE)
            train, test = number_rows(read_rows(single, problems))
            twins = twins_by_text(train, test)
            files: dict[Split, Path] = {"train": single, "test": single}
            files |= find_splits(self.root, None, ending=".json", named=_validation_alone)
        else:
            files = find_splits(self.root, problems, ending=".json", named=split_of_file)
            if not {"train", "test"} <= files.keys():
                raise self.nothing_found()
            train, test = (in_order(with_ids(read_rows(path, problems))) for path in (files["train"], files["test"]))
            twins = listed_twins(train, test)
        self._twins_found = twins.found
        images = image_folder(self.root, *IMAGE_FOLDERS)
        self._pair(train, test, images, files["train"])
        chosen = self._chosen(train, test, twins, files["train"])
        splits: dict[Split, list[VQARecord]] = {
            "train": _records(
                list(compress(train, chosen)),
                list(compress(twins.train, chosen)),
                images,
                files["train"],
                problems,
                linked=list(compress(linked_rows(train), chosen)),
            ),
            "test": _records(test, twins.test, images, files["test"], problems),
        }
        rewording = {
            str(row["qid"]): [train[place] for place in places] for row, places in zip(test, twins.of_test, strict=True)
        }
        splits["test"] = [
            replace(record, twins=_twins(rewording[record.sample_id], images, files["train"]))
            for record in splits["test"]
        ]
        if "validation" in files:
            self._add_validation(splits, images, files["validation"], twins.published, problems)
        return splits

    def twin_of(self, record: VQARecord) -> VQARecord | None:
        """The framed form of a test question, a training row as the files give it; see `twin_pairs`."""
        self._read()
        return self._twin_of.get((record.image, record.question))

    def _pair(self, train: Rows, test: Rows, images: str, file: Path) -> None:
        for row, place in zip(test, twin_pairs(train, test), strict=True):
            if place is not None:
                # Their problems are counted where the splits are read.
                records = _records([row, train[place]], [True, True], images, file, Problems(self.title))
                if len(records) == 2:
                    self._twin_of[records[0].image, records[0].question] = records[1]

    @property
    def description(self) -> dict[str, str]:
        """As in `VQADataModule`, with what the protocol leaves out, and how twins were found in files of one's own."""
        description = super().description
        if self._left_out:
            description["left out of train"] = self._left_out
        if self._twins_found:
            description["twins"] = self._twins_found
        return description

    def _chosen(self, train: Rows, test: Rows, twins: Twins, file: Path) -> list[bool]:
        """Whether a training row is one of the protocol's."""
        if self.protocol == "hub":
            if not twins.published or any("phrase_type" not in row for row in train):
                lacks = "is not the published one" if not twins.published else "does not say (phrase_type)"
                raise UserError(
                    f"protocol hub leaves out the framed forms among the published training rows: {file} {lacks}; "
                    f"put the published files there, or take another protocol"
                )
            reasons = hub_reasons(train, test)
            counts = Counter(filter(None, reasons))
            self._left_out = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
            return [not reason for reason in reasons]
        if self.protocol == "disjoint":
            tested = {without_ending(str(row.get("image_name"))) for row in test}
            chosen = [without_ending(str(row.get("image_name"))) not in tested for row in train]
            self._left_out = f"{chosen.count(False):,} on images of the test split"
            return chosen
        return [True] * len(train)

    def _add_validation(
        self, splits: dict[Split, list[VQARecord]], images: str, file: Path, published: bool, problems: Problems
    ) -> None:
        """Adds the split of the validation file, where the protocol and the file's rows allow it."""
        if self.protocol != "paper" and published:
            problems.add(f"not read under protocol {self.protocol}, which holds out training images", file.name)
            return
        rows = with_ids(read_rows(file, problems))
        records = _records(rows, [False] * len(rows), images, file, problems)
        tested = {(record.image, record.question): record for record in splits["test"]}
        if self.protocol != "paper" and all((record.image, record.question) in tested for record in records):
            problems.add(f"not read under protocol {self.protocol}: all its questions are test questions", file.name)
            return
        asked = [(record, tested.get((record.image, record.question))) for record in records]
        splits["validation"] = [
            replace(record, has_twin=known.has_twin, twins=known.twins) if known else record for record, known in asked
        ]


def hub_reasons(train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why each training row is not in the Hugging Face copy; "" for those that are."""

    def key(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row.get(name)).strip() for name in ("image_name", "question", "answer"))

    tested, seen = {key(row) for row in test}, set()
    reasons = []
    for row in train:
        if str(row.get("phrase_type")).strip() == FRAMED:
            reasons.append("framed")
        elif key(row) in seen:
            reasons.append("repeated")
        elif key(row) in tested:
            reasons.append("equal to a test row")
        else:
            reasons.append("")
            seen.add(key(row))
    return reasons


def _validation_alone(stem: str) -> Split | None:
    split = split_of_file(stem)
    return split if split == "validation" else None


def _records(
    rows: Sequence[Mapping[str, Any]],
    twins: Sequence[bool],
    images: str,
    file: Path,
    problems: Problems,
    *,
    linked: Sequence[int | None] | None = None,
) -> list[VQARecord]:
    records = []
    for row, twin, number in zip(rows, twins, linked or [None] * len(rows), strict=True):
        record = vqa_record(
            row, problems, where=file.name, folder=images, image_key="image_name", sample_id=str(row["qid"])
        )
        if record is not None:
            records.append(replace(record, has_twin=twin, linked=number))
    return records


def _twins(rows: Sequence[Mapping[str, Any]], images: str, file: Path) -> tuple[VQARecord, ...]:
    """The records of training rows that are twins, whether or not the protocol trains on them."""
    return tuple(_records(rows, [True] * len(rows), images, file, Problems(VQARAD.title)))
