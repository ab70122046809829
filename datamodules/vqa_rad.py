"""VQA-RAD (Lau et al., Scientific Data 2018), from its original file or from the field's two.

The usual trainset.json is the 1,797 training rows of the original file plus the framed form of *all* rows,
test rows included, in the order of the original file; `qid` numbers them, together with the test rows, from
1. A twin of a test question is a training row with the same image whose question equals, case and outer
blanks aside, that test row's question, rephrased or framed form. The original file shows the twins; for
trainset.json and testset.json `vqa_rad_twins.json` lists their ids, along with a digest of each row's image and
question, so that the list is never applied to other rows than it speaks of.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from typing import Any, Literal

from datamodules.arguments import Unpack
from datamodules.files import read_rows
from datamodules.problems import Problems
from datamodules.questions import VQARecord, vqa_record
from datamodules.records import Split
from datamodules.vqa import VQAArguments, VQADataModule
from umd.files import UserError

log = logging.getLogger(__name__)

SINGLE_FILE = "VQA_RAD Dataset Public.json"
TRAIN_FILE, TEST_FILE, VALIDATION_FILE = "trainset.json", "testset.json", "valset.json"


def is_null(value: object) -> bool:
    """Whether a field of the original file says that there is nothing."""
    return value is None or str(value).strip() in ("", "NULL")


def number_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The field's training and test rows (with their `qid`), from the rows of the original file."""
    train: list[dict[str, Any]] = []
    test: list[dict[str, Any]] = []
    number = 0
    for row in rows:
        number += 1
        is_test = str(row.get("phrase_type")).startswith("test")
        (test if is_test else train).append({**row, "qid": number})
        if not is_null(row.get("question_frame")):
            number += 1
            train.append({**row, "qid": number, "question": row["question_frame"]})
    return train, test


def find_twins(train: Iterable[Mapping[str, Any]], test: Iterable[Mapping[str, Any]]) -> tuple[set[int], set[int]]:
    """The ids of the training rows that are twins of a test question, and of the test rows that have one."""

    def key(row: Mapping[str, Any], form: str) -> tuple[str, str]:
        return str(row.get("image_name")), str(row[form]).strip().lower()

    forms: dict[tuple[str, str], set[int]] = {}
    for row in test:
        for form in ("question", "question_rephrase", "question_frame"):
            if not is_null(row.get(form)):
                forms.setdefault(key(row, form), set()).add(row["qid"])
    found = {
        row["qid"]: forms[key(row, "question")]
        for row in train
        if not is_null(row.get("question")) and key(row, "question") in forms
    }
    return set(found), set().union(*found.values())


def question_digest(row: Mapping[str, Any]) -> str:
    """The beginning of the SHA-256 of a row's image and question, outer blanks and case aside."""
    line = "\t".join(str(row.get(key)).strip().lower() for key in ("image_name", "question"))
    return hashlib.sha256(line.encode(errors="surrogatepass")).hexdigest()[:8]


def with_numbers(rows: Iterable[Mapping[str, Any]], where: str, problems: Problems) -> list[dict[str, Any]]:
    """The rows in the order of their `qid`, which becomes a number; those without one are left out."""
    numbered = []
    for place, row in enumerate(rows):
        qid = str(row.get("qid")).strip()
        if qid.isascii() and qid.isdecimal():
            numbered.append({**row, "qid": int(qid)})
        else:
            problems.add("row without a number (qid), left out", f"{where}: row {place + 1}")
    return sorted(numbered, key=lambda row: int(row["qid"]))


class VQARAD(VQADataModule):
    """VQA-RAD: 314 images in train and 203 in test (all of them also in train), 3,064 and 451 questions.

    Under `clean` the 292 training rows that reword a test question are dropped; valset.json, a copy of the
    test split where it is found, is not read. Under `paper` validation is valset.json or, without it, the
    test split.

    Args:
        root: Folder with `images/` and the annotations.
        annotations: "single" (the original file), "split" (trainset.json and testset.json), or "auto": the
            original file where it is present. Both give the same rows.
        **vqa: As in `VQADataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "VQA-RAD"
    layout = f"images/ and '{SINGLE_FILE}', or images/, {TRAIN_FILE} and {TEST_FILE}"

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

    def read_published(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """Reads the annotations, in the order of the original file whichever form is read.

        Raises:
            UserError: Neither form is there, or not the one asked for; or a file of the split form holds
                questions that are none of the published ones.
        """
        single = self.root / SINGLE_FILE
        if self.annotations == "single" or (self.annotations == "auto" and single.is_file()):
            if not single.is_file():
                raise self.nothing_found()
            if self.annotations == "auto" and (self.root / TRAIN_FILE).is_file():
                log.info("%s: read from '%s', not from the %s beside it", self.title, SINGLE_FILE, TRAIN_FILE)
            train, test = number_rows(read_rows(single, problems))
            train_twins, test_twins = find_twins(train, test)
            names: dict[Split, str] = {"train": SINGLE_FILE, "test": SINGLE_FILE}
        else:
            if not all((self.root / name).is_file() for name in (TRAIN_FILE, TEST_FILE)):
                raise self.nothing_found()
            train, test = (
                with_numbers(read_rows(self.root / name, problems), name, problems) for name in (TRAIN_FILE, TEST_FILE)
            )
            train_twins, test_twins = self._listed_twins(train, test)
            names = {"train": TRAIN_FILE, "test": TEST_FILE}
        splits: dict[Split, list[VQARecord]] = {
            "train": self._records(train, train_twins, names["train"], problems),
            "test": self._records(test, test_twins, names["test"], problems),
        }
        validation = self.root / VALIDATION_FILE
        if self.protocol == "paper" and validation.is_file():
            rows = self._records(read_rows(validation, problems), set(), VALIDATION_FILE, problems)
            twins = {(record.image, record.question) for record in splits["test"] if record.has_twin}
            splits["validation"] = [
                replace(record, has_twin=(record.image, record.question) in twins) for record in rows
            ]
        return splits

    def _records(
        self, rows: Iterable[Mapping[str, Any]], twins: set[int], where: str, problems: Problems
    ) -> list[VQARecord]:
        records = []
        for row in rows:
            record = vqa_record(
                row,
                problems,
                where=where,
                folder="images",
                image_key="image_name",
                sample_id=str(row.get("qid")),
            )
            if record is not None:
                records.append(replace(record, has_twin=bool(twins) and row["qid"] in twins))
        return records

    def _listed_twins(self, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> tuple[set[int], set[int]]:
        """The shipped lists of twins, after a check that they speak of these rows."""
        listed = json.loads(resources.files("datamodules").joinpath("vqa_rad_twins.json").read_text())
        for name, rows, digests in (
            (TRAIN_FILE, train, listed["train"]["rows"]),
            (TEST_FILE, test, listed["test"]["rows"]),
        ):
            other = [
                row["qid"]
                for row in rows
                if not (is_null(row.get("image_name")) or is_null(row.get("question")))
                and digests.get(str(row["qid"])) != question_digest(row)
            ]
            if other:
                shown = ", ".join(map(str, other[:5])) + (", ..." if len(other) > 5 else "")
                raise UserError(
                    f"{self.root / name}: {len(other)} of {len(rows)} rows have another image or question than the "
                    f"published row of that number (qid {shown}), so nothing says whether they reword a test "
                    f"question. Leave them out, or put the original '{SINGLE_FILE}' there, which shows it"
                )
        return set(listed["train"]["twins"]), set(listed["test"]["twins"])
