"""A phantom's folder: found by what the phantom depends on, made once and whole, never over other files."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules.arguments import check_least
from datamodules.phantom.layouts import write_melinda, write_roco, write_vqa_rad
from datamodules.phantom.studies import draw_splits
from umd.files import UserError

STAMP_FILE = "phantom.json"
VERSION = 3
"""Of the generator: to be raised with every change of what it writes."""


@dataclass(frozen=True, slots=True)
class PhantomFolder:
    """All that the files of a phantom depend on.

    Attributes:
        kind: What is written: VQA-RAD's, ROCO's or MELINDA's layout.
        size: Number of training images. Of questions a sixth as many are for test; of the others a tenth are for
            validation, and a tenth for test.
        seed: Of the images and texts.

    Raises:
        UserError: A number is out of its range.
    """

    kind: Literal["vqa", "captions", "classification"]
    size: int
    seed: int

    def __post_init__(self) -> None:
        check_least(2, size=self.size)
        check_least(0, phantom_seed=self.seed)

    @property
    def default_root(self) -> Path:
        """Where it lies in the user's cache."""
        return cache_folder() / f"{self.kind}-{self.size}-{self.seed}-v{VERSION}"

    @property
    def held_out(self) -> int:
        """The number of test images; where there is a validation split, it has as many."""
        return max(self.size // (6 if self.kind == "vqa" else 10), 1)

    def build(self, root: Path) -> None:
        """Writes the files unless they are there.

        Raises:
            UserError: `root` holds something else.
        """
        build_once(root, {"phantom": self.kind, "size": self.size, "seed": self.seed}, self._write)

    def _write(self, folder: Path) -> None:
        sizes = {"train": self.size, "validation": self.held_out, "test": self.held_out}
        if self.kind == "vqa":
            del sizes["validation"]
        splits = draw_splits(sizes, self.seed)
        write = {"vqa": write_vqa_rad, "captions": write_roco, "classification": write_melinda}[self.kind]
        write(splits, folder, seed=self.seed)


def cache_folder() -> Path:
    """The folder of all phantoms in the user's cache: below $UMD_CACHE, else below ~/.cache/umd."""
    return Path(os.environ.get("UMD_CACHE") or "~/.cache/umd").expanduser() / "phantom"


def build_once(root: Path, stamp: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    """Fills `root` with phantom files unless it holds the very same ones; nothing else is ever overwritten.

    The files are written into a folder beside `root`, which then takes its name in one step: no reader sees
    half of it, and of several processes that start at once the first to finish wins.

    Args:
        root: The folder to make.
        stamp: What the files depend on, as plain JSON values; kept in phantom.json.
        write: Writes the files into the (existing, empty) folder that it is given.

    Raises:
        UserError: `root` holds another phantom, or files that are no phantom's.
    """
    content = dict(stamp, version=VERSION)
    if _holds(root, content):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = root.parent / f".{root.name}-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        write(temporary)
        (temporary / STAMP_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        try:
            os.rename(temporary, root)
        except OSError:
            if not _holds(root, content):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _holds(root: Path, content: Mapping[str, Any]) -> bool:
    """Whether `root` holds this phantom (False: nothing at all)."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / STAMP_FILE).is_file():
        raise UserError(
            f"{root} exists and was not written by the phantom generator (it has no {STAMP_FILE}): "
            "give another root, or none for the default"
        )
    found = json.loads((root / STAMP_FILE).read_text(encoding="utf-8"))
    if found != content:
        raise UserError(
            f"{root} holds another phantom: asked for {dict(content)}, found {found}. "
            "Give another root, or delete that folder"
        )
    return True
