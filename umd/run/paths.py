"""Where a run's files go."""

from __future__ import annotations

import re
from pathlib import Path

from umd.files import UserError

_STAGES = {
    "MRPretrain": "pretrain",
    "TDCalib": "calibrate",
    "VQAClassifier": "vqa",
    "Classification": "classification",
    "Retrieval": "retrieval",
    "ContrastivePretrain": "contrastive_pretrain",
    "VQAGenerator": "vqa_generation",
}

CHOSEN, LATEST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
"""Where a run folder holds the checkpoint that validation chose, and the last one, where nothing was chosen."""


def stage_of(class_path: str) -> str:
    """The folder name of a stage: its own for the project's modules, else the class name in snake case."""
    name = class_path.rsplit(".", 1)[-1]
    return _STAGES.get(name) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def run_folder(runs: str, class_path: str, name: str, subcommand: str) -> Path:
    """`<runs>/<stage>/<name>` for a training; what else is done with it goes one folder below.

    Raises:
        UserError: the name is none of a folder in there.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
        raise UserError(f"--name {name}: it must be that of a folder inside {Path(runs) / stage_of(class_path)}")
    folder = Path(runs) / stage_of(class_path) / name
    return folder if subcommand == "fit" else folder / subcommand


def check_free(folder: Path, *, overwrite: bool, init_from: str | None) -> None:
    """Make sure that a new training does not mix its files with those of an earlier one.

    Raises:
        UserError: the folder holds an earlier training, and nothing says what to do with it; or the training is
            to replace the one that it starts from.
    """
    if not _holds_training(folder):
        return
    if not overwrite:
        last = _to_go_on_from(folder)
        go_on = f", go on with --ckpt_path {last}," if last else ""
        raise UserError(
            f"'{folder}' holds an earlier training. Keep both with --name ANOTHER{go_on} or replace it with "
            "--overwrite true"
        )
    if init_from and folder.resolve() in Path(init_from).resolve().parents:
        raise UserError(f"--overwrite true would delete '{init_from}', from which this training is to start")


def find_checkpoint(source: Path) -> Path:
    """The checkpoint that a path means: a file itself, of a run folder the chosen one, else the latest.

    Raises:
        UserError: a folder without checkpoints.
    """
    if not source.is_dir():
        return source
    found = next((source / name for name in (CHOSEN, LATEST) if (source / name).is_file()), None)
    if found is None:
        raise UserError(
            f"'{source}' is no folder of a run, which would have {CHOSEN} or {LATEST}, and none that umd export wrote"
        )
    return found


def _to_go_on_from(folder: Path) -> Path | None:
    last = folder / LATEST
    if last.is_file():
        return last
    return max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)


def _holds_training(folder: Path) -> bool:
    """A training without checkpoints is held by its results; one that has left neither may start anew."""
    return _to_go_on_from(folder) is not None or (folder / "results.json").is_file()


def folder_of(checkpoint: str | Path) -> Path | None:
    """The run folder that a checkpoint lies in, None where it lies elsewhere than a run's `checkpoints/`."""
    parent = Path(checkpoint).parent
    return parent.parent if parent.name == "checkpoints" else None
