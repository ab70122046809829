"""`umd.load`: from whatever holds a trained model to one that answers. Torch is imported only where it computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umd.files import UserError
from umd.inference.model import Model

if TYPE_CHECKING:
    import torch

CHOSEN, LATEST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
"""Where a run folder holds the checkpoint that validation chose, and the last one, where nothing was chosen."""


def load(source: str | Path, *, device: str | torch.device = "cpu") -> Model:
    """A model that answers: no trainer, no data, no configuration.

    Args:
        source: a checkpoint, or the folder of a run, whose best checkpoint is taken.
        device: where it computes: "cpu", "cuda", "cuda:1".

    Raises:
        UserError: there is no such file; or it is no checkpoint of this project, or a broken one; or the device is
            not there.
    """
    path = find_checkpoint(Path(source).expanduser())
    from umd.inference.loading import load_checkpoint  # imports torch, which takes seconds

    return load_checkpoint(path, device)


def find_checkpoint(source: Path) -> Path:
    """The checkpoint that a path means.

    Raises:
        UserError: a folder without checkpoints.
    """
    if not source.is_dir():
        return source
    found = next((source / name for name in (CHOSEN, LATEST) if (source / name).is_file()), None)
    if found is None:
        raise UserError(f"'{source}' is no folder of a run: it has neither {CHOSEN} nor {LATEST}")
    return found
