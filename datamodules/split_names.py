"""The names that people give to splits, and the files and folders that have them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from datamodules.problems import Problems
from datamodules.records import Split
from umd.files import UserError

_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}

_LIKE_A_SPLIT = re.compile(rf"(?:^|[^a-z])(?:{'|'.join(_NAMES)})(?:set|data)?(?:[^a-z]|$)")

_TABLES = (".csv", ".json", ".jsonl", ".parquet", ".pkl", ".tsv", ".txt", ".xlsx")
"""Endings of files that may hold the rows of a split."""


def split_of(name: str) -> Split | None:
    """The split that a folder, a file without its ending or a cell of a table names, case and outer blanks aside.

    None: it names none.
    """
    return _NAMES.get(name.strip().lower())


def find_splits(
    root: Path, problems: Problems | None, *, ending: str, named: Callable[[str], Split | None] = split_of
) -> dict[Split, Path]:
    """The files, or folders, that are named for a split, in the order of `Split`.

    Args:
        root: The folder to look in.
        problems: Takes files and folders whose names look like a split's and that are not among those found; None: they
            are not told.
        ending: Of the files, with its dot; "": folders are looked for.
        named: The split that a name without the ending stands for.

    Raises:
        UserError: Two of them are named for the same split.
    """
    found: dict[Split, Path] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        wanted = path.is_dir() if not ending else path.suffix.lower() == ending and path.is_file()
        split = named(path.stem if ending else path.name) if wanted else None
        if split is None:
            if problems is not None and looks_like_a_split(path):
                problems.add("not read, though it is named like a split", path.name)
        elif split in found:
            raise UserError(
                f"{root} holds {found[split].name} and {path.name}, which both stand for the {split} split: keep one"
            )
        else:
            found[split] = path
    return {split: found[split] for split in get_args(Split) if split in found}


def looks_like_a_split(path: Path) -> bool:
    """Whether a folder, or a file that may hold rows, has the name of a split in its own."""
    stem = path.stem if path.suffix.lower() in _TABLES else path.name
    return bool(_LIKE_A_SPLIT.search(stem.lower())) and (stem != path.name or path.is_dir())
