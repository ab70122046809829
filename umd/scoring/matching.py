"""Which answer belongs to which question: by question id, or by image and question, never by order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from umd.files import UserError
from umd.scoring.answers import Given
from umd.scoring.text import plain

_SHOWN = 3
_WHOLE = re.compile(r"(\d+)\.0+")

Key = Callable[[Any], Hashable | None]


@dataclass(frozen=True)
class Matched:
    """A file's answers, laid on the questions.

    Attributes:
        answers: an answer for each question, in the order of the split; None where there is none, or where the file
            contradicts itself.
        there: for each question, whether the file has a row for it.
        by: how rows were matched, in words.
        counts: of what was not as it should be: `missing` questions, questions answered in `contradictory` ways,
            rows that are `repeated`, rows for `unknown` questions, `empty` answers, and matched rows with an `other`
            question or image than the data set's.
        notes: the same, a line each, with examples.
    """

    answers: list[str | None]
    there: list[bool]
    by: str
    counts: dict[str, int]
    notes: tuple[str, ...]


def match(asked: pd.DataFrame, given: Given, same: Callable[[str], str]) -> Matched:
    """Lay a file's rows on the questions.

    By id where the file has ids that the data set knows, unless it shows that most of its rows ask about another image
    or question: a running number is no question id. Else by image and question. A question without a row has no answer;
    rows for other questions do not count; rows that repeat a question with the same answer count once; with different
    answers the system has not decided, and the question has no answer.

    Args:
        asked: the questions, see `Questions.table`.
        given: the file.
        same: what an answer is compared by.

    Raises:
        UserError: the file matches no question, or less than half of both its rows and the questions.
    """
    table, notes = given.table, []
    rows: list[list[int]] = []
    by, other = "", 0
    if "id" in table:
        rows, by = _by_id(asked, table["id"]), f"question id ('{given.columns['id']}')"
        other = _others(asked, table, rows)
        if 2 * other > sum(map(len, rows)):
            notes.append(f"'{given.columns['id']}' is no question id: most of its rows have another question or image")
            rows = []
    if _strange(table, rows) and {"image", "question"} <= set(table):
        rows, by, other = _by_image_and_question(asked, table), "image and question", 0
    if _strange(table, rows):
        raise _no_match(asked, given, sum(map(len, rows)))
    answers, repeated, undecided = _decided(table["answer"], rows, same)
    names = asked["question_id"]
    missing = [name for name, found in zip(names, rows, strict=True) if not found]
    contradictory = [name for name, wrong in zip(names, undecided, strict=True) if wrong]
    empty = [name for name, answer in zip(names, answers, strict=True) if answer is not None and not answer.strip()]
    known = {number for found in rows for number in found}
    unknown = [str(_row_name(table, number)) for number in range(len(table)) if number not in known]
    found = {
        "missing": (missing, "without an answer: wrong"),
        "contradictory": (contradictory, "with different answers: wrong"),
        "empty": (empty, "with an empty answer: wrong"),
        "repeated": (repeated, "that repeat an answer: counted once"),
        "unknown": (unknown, "for questions that are not in this split: not counted"),
    }
    for kind, (which, what) in found.items():
        if which:
            notes.append(_noted(which, "rows" if kind in ("repeated", "unknown") else "questions", what))
    if other:
        notes.append(f"{other:,} rows have another question or image than the data set: is it the right one?")
    counts = {kind: len(which) for kind, (which, _) in found.items()} | {"other": other}
    return Matched(answers, list(map(bool, rows)), by, counts, tuple(notes))


def _decided(
    answers: pd.Series, rows: Sequence[Sequence[int]], same: Callable[[str], str]
) -> tuple[list[str | None], list[str], list[bool]]:
    """Each question's answer, the rows that repeat one, and whether a question has several."""
    texts = answers.tolist()
    decided: list[str | None] = []
    repeated: list[str] = []
    undecided: list[bool] = []
    for found in rows:
        different = {same(texts[number]) for number in found} if len(found) > 1 else set()
        undecided.append(len(different) > 1)
        decided.append(texts[found[0]] if found and not undecided[-1] else None)
        if len(different) == 1:
            repeated += [f"row {number + 1}" for number in found[1:]]
    return decided, repeated, undecided


def _by_id(asked: pd.DataFrame, ids: pd.Series) -> list[list[int]]:
    names = [id_of(name) for name in asked["question_id"]]
    key: Key = id_of
    if len(set(names)) < len(names):  # "12" and "12.0" are two questions of this data set
        names, key = asked["question_id"].tolist(), str
    return _rows_of(names, map(key, ids))


def id_of(name: object) -> str:
    """A question's id however it was written: 12, "12", " 12 " and "12.0" are one."""
    text = plain(str(name)).strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def question_of(text: object) -> str:
    """A question as it is compared: letters and digits, in lower case."""
    return " ".join(re.findall(r"[^\W_]+", plain(str(text)).lower()))


def _by_image_and_question(asked: pd.DataFrame, table: pd.DataFrame) -> list[list[int]]:
    images = image_ends(asked["image"].unique())
    names = list(zip(asked["image"], map(question_of, asked["question"]), strict=True))
    keys = (
        (found, question_of(question)) if (found := image_of(image, images)) is not None else None
        for image, question in zip(table["image"], table["question"], strict=True)
    )
    return _rows_of(names, keys)


def image_ends(images: Iterable[str]) -> dict[str, str]:
    """Images by all ends of their paths that belong to one of them, with and without the file's ending."""
    ends: dict[str, set[str]] = defaultdict(set)
    for image in images:
        path = PurePosixPath(image)
        folders = path.parts[:-1]
        for name in {path.name, path.stem}:
            for start in range(len(path.parts)):
                ends[_path("/".join((*folders[start:], name)))].add(image)
    return {end: next(iter(found)) for end, found in ends.items() if len(found) == 1}


def image_of(name: str, ends: Mapping[str, str]) -> str | None:
    """The image that a path or name means; None where it is none, or not clear which."""
    parts = PurePosixPath(_path(name)).parts
    found = (ends.get("/".join(parts[start:]).removeprefix("//")) for start in range(len(parts)))
    return next((image for image in found if image is not None), None)


def _path(name: str) -> str:
    return plain(name).strip().replace("\\", "/").lower()


def _rows_of(names: Iterable[Hashable], keys: Iterable[Hashable | None]) -> list[list[int]]:
    """The rows of each question."""
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        if key is not None:
            rows[key].append(number)
    return [rows.get(name, []) for name in names]


def _others(asked: pd.DataFrame, table: pd.DataFrame, rows: Sequence[Sequence[int]]) -> int:
    """How many matched rows have another question, or image, than the data set's."""
    if not {"question", "image"} & set(table):
        return 0
    ends = image_ends(asked["image"].unique())
    nothing = [""] * len(table)
    questions = table["question"].tolist() if "question" in table else nothing
    images = table["image"].tolist() if "image" in table else nothing
    return sum(
        (question_of(questions[row]) not in ("", question_of(question)))
        or (image_of(images[row], ends) not in (None, image))
        for question, image, found in zip(asked["question"], asked["image"], rows, strict=True)
        for row in found
    )


def _row_name(table: pd.DataFrame, number: int) -> str:
    return str(table["id"].iloc[number]) if "id" in table else f"row {number + 1}"


def _noted(which: Sequence[str], of: str, what: str) -> str:
    shown = ", ".join(which[:_SHOWN]) + (", ..." if len(which) > _SHOWN else "")
    return f"{of} {what}: {len(which):,} ({shown})"


def _strange(table: pd.DataFrame, rows: Sequence[Sequence[int]]) -> bool:
    """Whether no row is one of the questions; or few rows are, of few questions: as by accident."""
    found, answered = sum(map(len, rows)), sum(map(bool, rows))
    return not found or (2 * found < len(table) and 2 * answered < len(rows))


def _no_match(asked: pd.DataFrame, given: Given, found: int) -> UserError:
    """What was looked for, and what was there."""
    first = asked.iloc[0]
    wanted = f"question ids such as '{first['question_id']}'"
    if {"image", "question"} <= set(given.table):
        wanted += f" or images such as '{first['image']}' with questions such as '{first['question']}'"
    has = {kind: str(given.table[kind].iloc[0]) for kind in ("id", "image", "question") if kind in given.table}
    there = ", ".join(f"{given.columns[kind]} '{value}'" for kind, value in has.items())
    how_many = (
        f"{f'only {found:,}' if found else 'none'} of its {len(given.table):,} rows {'are' if found > 1 else 'is'}"
    )
    return UserError(
        f"{given.path}: {how_many} among the {len(asked):,} questions. They have {wanted}; its first row has {there}"
    )
