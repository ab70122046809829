"""Where a run's files go, and what a checkpoint says about how it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umd.checkpoints import RECIPE_KEY, read_checkpoint

_STAGES = {
    "MRPretrain": "pretrain",
    "TDCalib": "calibrate",
    "VQAClassifier": "vqa",
    "Classification": "classification",
    "Retrieval": "retrieval",
    "ContrastivePretrain": "contrastive_pretrain",
    "VQAGenerator": "vqa_generation",
}


def stage_of(class_path: str) -> str:
    """The folder name of a stage: its own for the project's modules, else the class name in snake case."""
    name = class_path.rsplit(".", 1)[-1]
    return _STAGES.get(name) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def run_folder(runs: str, class_path: str, name: str, subcommand: str) -> Path:
    """`<runs>/<stage>/<name>` for a training; what else is done with it goes one folder below."""
    folder = Path(runs) / stage_of(class_path) / name
    return folder if subcommand == "fit" else folder / subcommand


def check_free(folder: Path, *, overwrite: bool, init_from: str | None) -> None:
    """Make sure that a new training does not mix its files with those of an earlier one.

    Raises:
        FileExistsError: the folder holds an earlier training, and nothing says what to do with it.
        ValueError: the training is to replace the one that it starts from.
    """
    if not _holds_training(folder):
        return
    if not overwrite:
        raise FileExistsError(
            f"'{folder}' holds an earlier training. Keep both with --name ANOTHER, go on with "
            f"--ckpt_path {_to_go_on_from(folder)}, or replace it with --overwrite true"
        )
    if init_from and folder.resolve() in Path(init_from).resolve().parents:
        raise ValueError(f"--overwrite true would delete '{init_from}', from which this training is to start")


def _to_go_on_from(folder: Path) -> Path:
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        return last
    return max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)


def _holds_training(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("*.ckpt"))


def folder_of(checkpoint: str | Path) -> Path | None:
    """The run folder that a checkpoint lies in, None where it lies elsewhere than a run's `checkpoints/`."""
    parent = Path(checkpoint).parent
    return parent.parent if parent.name == "checkpoints" else None


def recipe(path: str | Path, *, training: bool = False) -> dict[str, Any]:
    """What a checkpoint says about how it was made: "model" and "data", as configs have them.

    Args:
        path: the checkpoint.
        training: what a training needs to go on too: "trainer", "seed_everything".

    Raises:
        ValueError: the checkpoint says nothing, so it was not written by this project.
    """
    content = read_checkpoint(path)
    if RECIPE_KEY not in content:
        raise ValueError(
            f"'{path}' does not say how it was made: it is no checkpoint of this project. "
            "A released UMD or M3AE checkpoint is read by `umd convert`"
        )
    found: dict[str, Any] = content[RECIPE_KEY]
    wanted = ("model", "data", "trainer", "seed_everything") if training else ("model", "data")
    return {key: found[key] for key in wanted if key in found}


def differences(old: object, new: object, at: str = "") -> list[str]:
    """Where `new` departs from `old`, as lines "key: new (checkpoint: old)"; keys that only `new` has are skipped."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key, value in old.items()
            if key in new
            for line in differences(value, new[key], f"{at}.{key}" if at else str(key))
        ]
    return [] if old == new else [f"{at}: {new} (checkpoint: {old})"]
