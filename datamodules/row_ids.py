"""The ids of rows, under the names that copies give them, or numbers where they have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEYS = ("qid", "question_id")
"""As published, and as the code of others wants it."""


def row_id(row: Mapping[str, Any]) -> str | None:
    """A row's id; None where it has none, or a blank one."""
    found = (str(row[key]).strip() for key in KEYS if row.get(key) is not None)
    return next(filter(None, found), None)


def row_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """An id for each row: its own, else "row" and its place in the file, from 1."""
    return [row_id(row) or f"row{place}" for place, row in enumerate(rows, start=1)]
