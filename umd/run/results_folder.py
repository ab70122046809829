"""Where a test's results or predictions go, so that those of another checkpoint, protocol or data are not lost."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedTest:
    """What is about to be tested or predicted.

    Attributes:
        checkpoint: the file.
        data_class: the data module's class, without its package.
        protocol: of the data; None where it has none.
        partial: whether only a part of the split will be.
        split: which split.
        root: the data's folder; None: it does not tell one test from another.
        file: what says of a folder which one it holds.
        controls: whether the questions are asked otherwise too.
    """

    checkpoint: Path
    data_class: str
    protocol: str | None
    partial: bool
    split: str = "test"
    root: Path | None = None
    file: str = "results.json"
    controls: bool = False


def results_folder(folder: Path, test: PlannedTest) -> Path:
    """The folder itself, or one beside it, named after what is other, where it holds another test.

    The same test again takes the place of the first, and so does a whole one that of a part, and one with controls
    that of one without.
    """
    other = _what_is_other(folder, test)
    if not other:
        return folder
    beside = folder.with_name("_".join([folder.name, *other]))
    for number in count(2):
        if not _what_is_other(beside, test):
            break
        beside = folder.with_name("_".join([folder.name, *other, str(number)]))
    logger.info("'%s' holds another test: this one goes to '%s'", folder, beside)
    return beside


def _what_is_other(folder: Path, test: PlannedTest) -> list[str]:
    """In words for a folder's name, where this test is not the one that the folder holds; nothing where it may go."""
    path = folder / test.file
    if not path.is_file():
        older = test.file != "results.json" and (folder / "predictions.csv").is_file()  # which says nothing of itself
        return [test.checkpoint.stem] if older else []
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    other = [] if _is_of(held, test.checkpoint, folder) else [test.checkpoint.stem]
    data: Mapping[str, Any] = held.get("test") or {}
    if data.get("data_class", test.data_class) != test.data_class:
        other.append(test.data_class)
    if data.get("protocol", test.protocol) != test.protocol:
        other.append(str(test.protocol))
    if held.get("split", test.split) != test.split:
        other.append(test.split)
    if test.root is not None and held.get("root") != str(test.root):
        other.append(test.root.name)
    if test.partial and not held.get("limits"):
        other.append("partial")
    if held.get("controls") and not test.controls:
        other.append("without_controls")
    return other


def _is_of(held: Mapping[str, Any], checkpoint: Path, folder: Path) -> bool:
    """Whether results are of a checkpoint: of a file in this place, whatever has been trained since, or as this one."""
    tested = held.get("checkpoint")
    if tested is None:
        return False
    if checkpoint.resolve() in (Path(tested["path"]).resolve(), (folder / tested["path"]).resolve()):
        return True
    with checkpoint.open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == tested["sha256"])
