"""The splits of every protocol as plain files, for whoever does not use this code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from datamodules.carving import SPLIT_SEED
from datamodules.problems import Problems
from datamodules.questions import VQARecord
from datamodules.records import Split
from datamodules.summary import as_csv
from datamodules.vqa import Protocol, VQADataModule
from umd.files import UserError

Rows = Mapping[Split, Sequence[VQARecord]]

MANIFEST = "manifest.json"

_TRAIN: dict[Protocol, str] = {
    "clean": "the published training rows without twins of test questions",
    "paper": "all published training rows",
    "hub": "the rows of the Hugging Face copy: none framed, none twice, none that equals a test row, no twin",
    "disjoint": "the rows of clean whose image the test split does not hold",
}


def under(data: VQADataModule, protocol: Protocol) -> VQADataModule:
    """The same data set under another protocol."""
    other = copy(data)
    other.protocol = protocol
    return other


def exported(data: VQADataModule) -> tuple[dict[str, str], dict[str, str]]:
    """The text of each file, and why a protocol has none.

    There is a file for each split of each protocol, one each for the twins in train, the test questions that have one
    and those that have none, and the manifest, which says of each how it was made and what its digest is.

    Raises:
        UserError: The files are not there.
    """
    rows: dict[str, tuple[str, Sequence[VQARecord]]] = {}
    refused: dict[str, str] = {}
    for protocol in data.protocols:
        try:
            other = under(data, protocol)
            published, splits = other.read_published(Problems(data.title)), other.read(Problems(data.title))
        except UserError as error:
            if protocol == data.protocol:
                raise
            refused[protocol] = str(error)
            continue
        for split, records in splits.items():
            rows[f"{protocol}_{split}.csv"] = _how(other, split, published, splits), records
        if protocol == "paper":
            rows |= _twins(published)
    texts = {name: as_csv([_line(record) for record in records]) for name, (_, records) in rows.items() if records}
    manifest = {
        "data": data.title,
        "id": "as in the published files; where they have none, the row's place",
        "image": "path in the data set's folder",
        "question_digest": "16 hex digits of the SHA-256 of the question, in small letters without outer blanks",
        "ids_sha256": "SHA-256 of the sorted ids, a line feed after each, in UTF-8",
        "not_possible": refused,
        "files": {name: _facts(text, *rows[name]) for name, text in texts.items()},
    }
    return texts | {MANIFEST: json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"}, refused


def _how(data: VQADataModule, split: Split, published: Rows, splits: Rows) -> str:
    protocol = data.protocol
    if split == "test":
        return "the published test split"
    if "validation" in published:
        return _TRAIN[protocol] if split == "train" else "the published validation split"
    if protocol == "paper":
        return _TRAIN[protocol] if split == "train" else "none is published, so the test split"
    if "validation" not in splits:
        return _TRAIN[protocol]
    fold = f", share {data.validation_fold + 1}" if data.validation_fold else ""
    what, sorted_by = {
        "image": ("images", "name"),
        "question": ("questions, each with the rows of its image that reword it,", "image and first wording"),
    }[data.validation_by]
    carved = (
        f"{data.validation_fraction:.0%} of the {what} of: {_TRAIN[protocol]}; sorted by {sorted_by} and shuffled by "
        f"Python's random.Random({SPLIT_SEED}){fold}"
    )
    if split == "validation":
        return carved
    return f"{_TRAIN[protocol]}; without the {data.validation_by}s of {protocol}_validation.csv"


def _twins(published: Rows) -> dict[str, tuple[str, Sequence[VQARecord]]]:
    """What is on either side, of published splits in which twins are marked."""
    test = published.get("test", [])
    return {
        "twins_in_train.csv": (
            "published training rows that have the image of a test question and its question in another form, or equal",
            [record for record in published.get("train", []) if record.has_twin],
        ),
        "test_with_twin.csv": ("test questions with a twin in train", [record for record in test if record.has_twin]),
        "test_twin_free.csv": ("test questions without one", [record for record in test if not record.has_twin]),
    }


def _line(record: VQARecord) -> dict[str, str]:
    question = record.question.strip().lower().encode(errors="surrogatepass")
    return {
        "id": record.sample_id,
        "image": record.image,
        "question_digest": hashlib.sha256(question).hexdigest()[:16],
    }


def _facts(text: str, how: str, records: Sequence[VQARecord]) -> dict[str, Any]:
    ids = "".join(f"{name}\n" for name in sorted(record.sample_id for record in records))
    return {
        "how": how,
        "rows": len(records),
        "images": len({record.image for record in records}),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }
