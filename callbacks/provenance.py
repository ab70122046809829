"""What was tested: which file, which data, how much of it, by which versions; see `umd.protocols.Results`."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Sized
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from umd.protocols import HasDescription, HasTruths, Limits, Split, TestedCheckpoint, TestedData


def tested_checkpoint(
    path: str | os.PathLike[str] | None, folder: Path, step: int, epoch: int
) -> TestedCheckpoint | None:
    """The checkpoint that was tested; None where the weights are in no file.

    Args:
        path: as it was given.
        folder: of the results.
        step: optimizer steps that were behind it.
        epoch: the epoch that the training was in.
    """
    if path is None or not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TestedCheckpoint(path=shown_path(Path(path), folder), sha256=digest, step=step, epoch=epoch)


def shown_path(checkpoint: Path, folder: Path) -> str:
    """A checkpoint's path as the results in a folder name it.

    From the folder on where the checkpoint lies in the same run (`checkpoints/best.ckpt`, or for a test in a folder of
    the run `../checkpoints/best.ckpt`), so that a run can be moved; else as it was given.
    """
    run = checkpoint.resolve().parent.parent
    if run in (folder.resolve(), folder.resolve().parent):
        return Path(os.path.relpath(checkpoint.resolve(), folder.resolve())).as_posix()
    return str(checkpoint)


def tested_part(trainer: Trainer) -> Limits | None:
    """How much of the test split a test saw; None for all of it."""
    return _part(trainer.num_test_batches, trainer.test_dataloaders)


def predicted_part(trainer: Trainer) -> Limits | None:
    """How much of its split a prediction saw; None for all of it."""
    return _part(trainer.num_predict_batches, trainer.predict_dataloaders)


def _part(batches: Iterable[int | float], loaders: Any) -> Limits | None:  # noqa: ANN401 - Lightning's are unions
    seen = sum(int(number) for number in batches)
    loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
    there = sum(len(loader) for loader in loaders) if all(isinstance(loader, Sized) for loader in loaders) else None
    return None if seen == there else Limits(batches=seen, of=there)


def tested_data(data: object, split: Split = "test") -> TestedData | None:
    """What a data module says of itself, and of this split; None where it says nothing."""
    if not isinstance(data, HasDescription):
        return None
    facts = dict(data.description)
    name, protocol = facts.pop("data", None), facts.pop("protocol", None)
    tested = TestedData(data_class=type(data).__name__, data=name, protocol=protocol, facts=facts)
    if isinstance(data, HasTruths) and (without := data.without_truth(split)):
        tested["without_truth"] = without
    return tested


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    packages = {name: version(name) for name in ("umd", "torch", "lightning")}
    return {**packages, "python": platform.python_version()}
