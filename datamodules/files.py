"""Annotation files, read with errors in the user's words, and within limits whatever they hold."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.problems import Problems
from umd.files import UserError

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 256 * 2**20
"""Larger files that must be read whole (JSON, CSV) are refused; the largest published one has 5 MB."""

MOST_LINE_BYTES = 16 * 2**20
"""Longer lines are refused: a file of lines is read line by line, whatever its size."""

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""What may stand between the cells of a table of one's own."""

_HEAD_LENGTH = 2**16
"""How many characters the head of a table may have."""

_LONG_ROW = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_whole(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: It has more than `MOST_BYTES`, which is looked up before it is read, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size <= MOST_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    raise UserError(f"{path} has {size:,} bytes; more than {MOST_BYTES:,} are not read: is it the right file?")


def read_rows(path: Path, problems: Problems) -> list[dict[str, Any]]:
    """The rows of a JSON file that holds one list of objects; anything else in the list is a counted problem.

    Raises:
        UserError: The file is no JSON, holds no list, or an empty one, or is too large; names the file and the place.
    """
    try:
        content = parse_json(read_whole(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a JSON file: {error}") from error
    except NotJSONError as error:
        raise UserError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, list):
        raise UserError(f"{path} should hold a list of rows, it holds a {type(content).__name__}")
    if not content:
        raise UserError(f"{path} holds a list without rows")
    rows = []
    for number, row in enumerate(content):
        if isinstance(row, dict):
            rows.append(row)
        else:
            problems.add("entry that is no row, left out", f"{path.name}, entry {number}")
    return rows


class NotJSONError(UserError):
    """A text that is no JSON, or none that can be used; the message says where, and does not name the file."""


def parse_json(text: str) -> Any:  # noqa: ANN401 - that is what JSON is
    """The content of a JSON text; halves of surrogate pairs, which no file and no tokenizer takes, become U+FFFD.

    Raises:
        NotJSONError: It is no JSON, nests too deeply, or holds a number with thousands of digits.
    """
    try:
        content = json.loads(text)
        return _with_whole_characters(content) if r"\ud" in text or r"\uD" in text else content
    except RecursionError:
        raise NotJSONError("it nests too deeply") from None
    except ValueError as error:
        raise NotJSONError(str(error)) from error


def _with_whole_characters(content: Any) -> Any:  # noqa: ANN401
    if isinstance(content, str):
        return _LONE_SURROGATE.sub("\ufffd", content)
    if isinstance(content, list):
        return [_with_whole_characters(entry) for entry in content]
    if isinstance(content, dict):
        return {_with_whole_characters(key): _with_whole_characters(value) for key, value in content.items()}
    return content


def read_json_lines(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that holds one a line, each after its "file:number"; other lines are counted.

    Raises:
        UserError: As in `read_lines`.
    """
    for where, line in read_lines(path, problems):
        try:
            content = parse_json(line)
        except NotJSONError:
            problems.add("line that is no JSON, left out", where)
            continue
        if isinstance(content, dict):
            yield where, content
        else:
            problems.add("line that is no JSON object, left out", where)


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are neither blank nor broken UTF-8, each after its "file:number".

    Raises:
        UserError: A line is too long to be one, the file is UTF-16, or it cannot be read; names the file.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MOST_LINE_BYTES + 1):
                number += 1
                where = f"{path.name}:{number}"
                if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise UserError(f"{path} is UTF-16; save the file as UTF-8")
                if len(line) > MOST_LINE_BYTES:
                    raise UserError(f"{path}, line {number}: longer than {MOST_LINE_BYTES:,} bytes, so no text file")
                if b"\0" in line:
                    problems.add("line with NUL bytes, left out", where)
                    continue
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    problems.add("line that is not UTF-8, left out", where)
                    continue
                if text.strip():
                    yield where, text
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


class MissingColumnError(UserError):
    """A table lacks columns.

    Args:
        message: Names the table, these columns and those that are there.
        columns: The columns.
    """

    def __init__(self, message: str, columns: Sequence[str]) -> None:
        super().__init__(message)
        self.columns = tuple(columns)


def table_head(path: Path, usual: str) -> tuple[list[str], str]:
    """The names in a table's head, and what stands between its cells: whichever of `SEPARATORS` makes most names.

    Args:
        path: The table.
        usual: The separator where several make as many.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            text = file.read(_HEAD_LENGTH)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error

    def names(separator: str) -> list[str]:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        return [name.strip() for name in next(filter(None, rows), [])]

    separator = max((usual, *SEPARATORS), key=lambda mark: len(names(mark)))
    return names(separator), separator


def in_asked_case(header: Sequence[str], asked: Collection[str]) -> list[str]:
    """The names of a table's head; one that is asked for and stands there once, in another case, as it is asked for."""
    found = Counter(name.lower() for name in header)
    return [
        name.lower() if name not in asked and name.lower() in asked and found[name.lower()] == 1 else name
        for name in header
    ]


def read_table(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), separator: str = ",", any_case: bool = False
) -> pd.DataFrame:
    """These columns of a CSV file, as text without outer blanks; an empty cell is "".

    Args:
        path: The file.
        columns: What it must hold.
        optional: What is read where it is there.
        separator: Of the cells.
        any_case: Whether the names of columns may stand there in another case.

    Raises:
        UserError: The file is no UTF-8, no CSV, too large, lacks a column or holds one twice; names the file and the
            place.
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
    import pandas as pd  # not above: it takes half a second, and help and what is mistyped are said first

    try:
        # The header is read as a row, so that a row with more cells than it has is an error and never shifts.
        rows = pd.read_csv(
            path, sep=separator, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        ).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is not a CSV file with a header: {_why_no_table(error, separator)}") from error
    header = [name.strip() for name in rows.iloc[0]]
    if any_case:
        header = in_asked_case(header, (*columns, *optional))
    check_columns(path, header, columns, optional)
    chosen = [column for column in dict.fromkeys((*columns, *optional)) if column in header]
    return pd.DataFrame({column: rows[header.index(column)].iloc[1:].str.split().str.join(" ") for column in chosen})


def _why_no_table(error: ValueError, separator: str) -> str:
    """What pandas says of a file, in plain words where a row has more cells than the head."""
    if (long := _LONG_ROW.search(str(error))) is None:
        return str(error)
    head, line, cells = long.groups()
    return f"line {line} has {cells} cells, the header {head}: put a text with {SEPARATORS[separator]} in quotes"


def check_columns(path: Path, header: Sequence[str], columns: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Checks the names in a table's head.

    Raises:
        MissingColumnError: One of `columns` is not among them; names the file.
        UserError: One of both kinds occurs twice; names the file.
    """
    there = ", ".join(name[:80] for name in header[:20]) + (", ..." if len(header) > 20 else "")
    if missing := [column for column in columns if column not in header]:
        named = " and no ".join(f"'{column}'" for column in missing)
        raise MissingColumnError(f"{path}: no column {named} (there: {there})", missing)
    if twice := [column for column in (*columns, *optional) if list(header).count(column) > 1]:
        raise UserError(f"{path}: several columns '{twice[0]}' (there: {there})")
