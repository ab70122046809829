"""The names that people give to splits."""

from __future__ import annotations

from datamodules.records import Split

_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_of(name: str) -> Split | None:
    """The split that a folder, a file without its ending or a cell of a table names, case and outer blanks aside.

    None: it names none.
    """
    return _NAMES.get(name.strip().lower())
