"""Somebody's answers, from CSV, JSON or JSON lines, by the names of their columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from umd.files import UserError

ID_NAMES: Final = ("questionid", "qid", "sampleid", "id")
IMAGE_NAMES: Final = ("image", "imagename", "imgname", "imagepath", "imagefile", "imageid", "img", "filename")
QUESTION_NAMES: Final = ("question", "questiontext", "query", "prompt")
ANSWER_NAMES: Final = (
    *("answer", "prediction", "predictedanswer", "predanswer", "modelanswer", "predicted", "pred"),
    *("response", "output", "text"),
)
"""What columns are called, letters and digits alone."""

_NO_LINES: Final = (
    "a file of lines is not read: answers are matched by id or by image and question, never by order. Give CSV, JSON "
    "or JSON lines"
)

ENDINGS: Final = (".csv", ".tsv", ".json", ".jsonl")


@dataclass(frozen=True, eq=False)
class Given:
    """A file of answers.

    Attributes:
        path: the file.
        table: a row a row of the file, texts: `answer`, and those of `id`, `image` and `question` that it has.
        columns: what the file calls these columns.
    """

    path: Path
    table: pd.DataFrame
    columns: dict[str, str]


def read_answers(path: Path, id_column: str | None = None, answer_column: str | None = None) -> Given:
    """The answers in a file.

    CSV (columns apart by commas, semicolons or tabs; texts as they are, "n/a" included), a JSON list of objects, a JSON
    object of answers by question id, or one JSON object a line.

    Args:
        path: the file.
        id_column: the column of question ids; None: found by its name.
        answer_column: the column of the answers; None: found by its name.

    Raises:
        UserError: the file cannot be read, has no column of this kind, or two that might be the answers.
    """
    rows = _rows(path)
    if not rows:
        raise UserError(f"{path}: there is no row in it")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {"answer": _answer_column(path, names, answer_column)}
    others = [name for name in names if name != columns["answer"]]
    if id_column is not None and id_column not in names:
        raise UserError(f"{path}: there is no column '{id_column}' (--id); there are {_listed(names)}")
    for kind, known, told in (
        ("id", ID_NAMES, id_column),
        ("image", IMAGE_NAMES, None),
        ("question", QUESTION_NAMES, None),
    ):
        found = told or _first(others, known)
        if found is not None:
            columns[kind] = found
    if "id" not in columns and not {"image", "question"} <= set(columns):
        raise UserError(
            f"{path}: nothing says which question a row answers: it needs a column question_id (or qid, or --id NAME), "
            f"or the two columns image and question; there are {_listed(names)}"
        )
    table = pd.DataFrame({kind: [_text(row.get(name)) for row in rows] for kind, name in columns.items()})
    return Given(path, table, columns)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    if path.suffix.lower() in (".json", ".jsonl"):
        return _json_rows(path, text)
    return _csv_rows(path, text)


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=lambda mark: len(next(csv.reader([head], delimiter=mark), [])))
    says_its_kind = path.suffix.lower() in ENDINGS
    if not says_its_kind and text.strip() and separator not in head:
        raise UserError(f"{path}: {_NO_LINES}")
    try:
        # The header is read as a row, so that a row with more cells than it has is an error and never shifts.
        cells = pd.read_csv(io.StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        why = f"not a CSV file with a header: {' '.join(str(error).split())}" if says_its_kind else _NO_LINES
        raise UserError(f"{path}: {why}") from error
    header, *rows = cells.fillna("").to_numpy().tolist()
    names = [name.strip() for name in header]
    if len(set(names)) != len(names):
        raise UserError(f"{path}: two columns have the same name; there are {_listed(names)}")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except RecursionError:
        raise UserError(f"{path} is not a file of answers: it nests too deeply") from None
    except ValueError as error:
        if "\n" not in text.strip():
            raise UserError(f"{path} is not JSON: {error}") from error
        content = list(_lines(path, text))
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]):
            content = lists[0]
        elif not any(isinstance(value, dict | list) for value in content.values()):
            content = [{"question_id": name, "answer": answer} for name, answer in content.items()]
        else:
            content = [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f"{path} should hold a list of objects, or an object of answers by question id")
    return content


def _lines(path: Path, text: str) -> Iterable[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: no JSON: {error}") from error


def _text(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """A cell as text: null is empty, a list of one is that one, 12.0 is 12."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value != value:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _answer_column(path: Path, names: Sequence[str], told: str | None) -> str:
    if told is not None:
        if told not in names:
            raise UserError(f"{path}: there is no column '{told}' (--answer); there are {_listed(names)}")
        return told
    found = [name for name in names if _plain(name) in ANSWER_NAMES]
    if not found:
        raise UserError(f"{path}: no column is called answer or prediction (--answer NAME): there are {_listed(names)}")
    if len(found) > 1:
        raise UserError(f"{path}: {_listed(found)} might all be the system's answers: say which with --answer NAME")
    return found[0]


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    plain = {_plain(name): name for name in reversed(names)}
    return next((plain[name] for name in known if name in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
