"""Annotation files, read with errors in the user's words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.problems import Problems


def read_rows(path: Path, problems: Problems) -> list[dict[str, Any]]:
    """The rows of a JSON file that holds one list of objects; anything else in the list is a counted problem.

    Raises:
        ValueError: The file is no JSON, or holds no list; names the file and the place.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, list):
        raise ValueError(f"{path} should hold a list of rows, it holds a {type(content).__name__}")
    rows = []
    for number, row in enumerate(content):
        if isinstance(row, dict):
            rows.append(row)
        else:
            problems.add("entry that is no row, left out", f"{path.name}, entry {number}")
    return rows


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are neither blank nor broken UTF-8, each after its "file:number"."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                problems.add("line that is not UTF-8, left out", where)
                continue
            if text.strip():
                yield where, text


def write_whole(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 so that a reader finds the old content or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
