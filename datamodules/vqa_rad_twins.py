"""Twins of VQA-RAD's test questions: shown by the original file, listed for the field's two, found by text in others.

A twin of a test question is a training row with the same image whose question equals, case and outer blanks aside, that
test row's question, rephrased or framed form. trainset.json and testset.json lack the other forms, so
`vqa_rad_splits.json` lists them, and which row is whose twin, along with a digest of each row's image and question, so
that the list is never applied to other rows than it speaks of. Which training rows reword each other stands there as
well, and the ids of every protocol's splits, for others to use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from operator import or_
from pathlib import PurePosixPath
from typing import Any

from datamodules.image_files import without_ending
from datamodules.questions import linked_by_keys, places_of_twins

Row = Mapping[str, Any]

FORMS = ("question", "question_rephrase", "question_frame")


@dataclass(frozen=True, slots=True)
class Twins:
    """Which rows are twins.

    Attributes:
        train: For each training row, whether it is a twin of a test question.
        test: For each test row, whether it has one.
        of_test: For each test row, the places of the training rows that are twins of it.
        published: Whether all rows are published ones.
        found: How twins were found where that is less sure than for the published files, for tables; else "".
    """

    train: list[bool]
    test: list[bool]
    of_test: list[tuple[int, ...]]
    published: bool = True
    found: str = ""


def _keys(row: Row, forms: Iterable[str]) -> set[tuple[str, str]]:
    """The image of a row with its words in each of these forms."""
    image = without_ending(str(row.get("image_name")).strip())
    return {(image, str(row[form]).strip().lower()) for form in forms if not is_null(row.get(form))}


def is_null(value: object) -> bool:
    """Whether a field of the original file says that there is nothing."""
    return value is None or str(value).strip() in ("", "NULL")


def twins_by_text(train: Sequence[Row], test: Sequence[Row]) -> Twins:
    """The twins among rows by their definition, with the forms of the test questions that the rows hold."""
    of_test = places_of_twins([_keys(row, FORMS[:1]) for row in train], [_keys(row, FORMS) for row in test])
    twins = {place for found in of_test for place in found}
    return Twins([place in twins for place in range(len(train))], list(map(bool, of_test)), of_test)


def linked_rows(train: Sequence[Row]) -> list[int]:
    """For each training row, a number that it shares with the rows that reword it, and with no other.

    One rewords another as a twin does a test question, and so do those that reword the same: by the forms that rows
    hold, and as listed for published rows.
    """
    listed = _published()["train"]
    group = {listed["rows"][str(number)]: place for place, ids in enumerate(listed["linked"]) for number in ids}
    words = {key for row in train for key in _keys(row, FORMS[:1])}
    keys: list[set[Hashable]] = [{key for key in _keys(row, FORMS) if key in words} for row in train]
    for own, digest in zip(keys, map(question_digest, train), strict=True):
        if digest in group:
            own.add(group[digest])
    return linked_by_keys(keys)


def listed_twins(train: Sequence[Row], test: Sequence[Row]) -> Twins:
    """The twins among rows of the field's two files: those listed for published rows, by their text among others."""
    listed = _published()
    marks = [_marks(listed[part], rows) for part, rows in (("train", train), ("test", test))]
    others = sum(mark is None for part in marks for mark in part)
    known_train, known_test = ([bool(mark) for mark in part] for part in marks)
    of_test = _places(listed, train, test)
    if not others:
        return Twins(known_train, known_test, of_test)
    text = twins_by_text(train, test)
    if not (any(known_train) and any(known_test)):
        return Twins(
            text.train, text.test, text.of_test, False, "found by text alone, these are not the published files"
        )
    return Twins(
        list(map(or_, known_train, text.train)),
        list(map(or_, known_test, text.test)),
        [tuple(sorted({*one, *other})) for one, other in zip(of_test, text.of_test, strict=True)],
        False,
        f"as published, and by text for the {others:,} rows that are not the published ones",
    )


def twin_pairs(train: Sequence[Row], test: Sequence[Row]) -> list[int | None]:
    """For each test row, the place of its twin among the training rows: its framed form.

    The original file shows it; of the field's two files it is the row that is numbered next, in published rows,
    whichever ids a copy gives them. None for rows of which neither tells.
    """
    listed = _published()
    asked, framed = listed["test"]["rows"], listed["train"]["rows"]
    twins = set(listed["train"]["twins"])
    pairs = {asked[str(n)]: framed[str(n + 1)] for n in listed["test"]["twins"] if n + 1 in twins}
    places = {question_digest(row): place for place, row in enumerate(train)}

    def twin(row: Row) -> str:
        frame = row.get("question_frame")
        return pairs.get(question_digest(row), "") if is_null(frame) else question_digest({**row, "question": frame})

    return [places.get(twin(row)) for row in test]


def _published() -> dict[str, Any]:
    """What is listed of the published rows."""
    found: dict[str, Any] = json.loads(resources.files("datamodules").joinpath("vqa_rad_splits.json").read_text())
    return found


def _places(listed: Mapping[str, Any], train: Sequence[Row], test: Sequence[Row]) -> list[tuple[int, ...]]:
    """For each test row, the places of the training rows that are listed as twins of it."""
    of_train, of_test = listed["train"]["rows"], listed["test"]["rows"]
    wanted: dict[str, set[str]] = {}
    for one, other in listed["pairs"]:
        wanted.setdefault(of_test[str(other)], set()).add(of_train[str(one)])
    places: dict[str, list[int]] = {}
    for place, row in enumerate(train):
        places.setdefault(question_digest(row), []).append(place)
    digests = map(question_digest, test)
    return [
        tuple(sorted({place for one in wanted.get(digest, ()) for place in places.get(one, ())})) for digest in digests
    ]


def _marks(listed: Mapping[str, Any], rows: Sequence[Row]) -> list[bool | None]:
    """For each row, whether it is a twin, or has one, by the list; None where the list does not have it."""
    digests: Mapping[str, str] = listed["rows"]
    known, twins = set(digests.values()), {digests[str(number)] for number in listed["twins"]}
    marks: list[bool | None] = []
    for row in rows:
        digest = question_digest(row)
        unused = is_null(row.get("image_name")) or is_null(row.get("question"))
        marks.append(digest in twins if digest in known else False if unused else None)
    return marks


def question_digest(row: Row) -> str:
    """The beginning of the SHA-256 of a row's image and question, outer blanks and case aside.

    The image counts as published, `synpic1.jpg`, whatever its folder and its ending are in a copy.
    """
    image = without_ending(PurePosixPath(str(row.get("image_name")).strip()).name)
    line = f"{image}.jpg\t{str(row.get('question')).strip()}".lower()
    return hashlib.sha256(line.encode(errors="surrogatepass")).hexdigest()[:8]
