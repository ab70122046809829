"""`umd.load`: from whatever holds a trained model to one that answers. Torch is imported only where it computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umd.inference.folder import Folder, is_exported, read_folder
from umd.inference.model import Model
from umd.inference.preparation import Preparation
from umd.inference.program import OnnxProgram
from umd.run.paths import find_checkpoint

if TYPE_CHECKING:
    import torch


def load(source: str | Path, *, device: str | torch.device = "cpu") -> Model:
    """A model that answers: no trainer, no data, no configuration.

    Args:
        source: a checkpoint; or the folder of a run, whose best checkpoint is taken; or one that `umd export` wrote.
        device: where it computes: "cpu", "cuda", "cuda:1".

    Raises:
        UserError: there is no such file; or it is no checkpoint of this project, or a broken one; or the device is
            not there; or what runs an exported program is not installed.
    """
    path = Path(source).expanduser()
    if is_exported(path):
        return load_folder(read_folder(path), str(device))
    path = find_checkpoint(path)
    from umd.inference.loading import load_checkpoint  # imports torch, which takes seconds

    return load_checkpoint(path, device)


def load_folder(folder: Folder, device: str = "cpu") -> Model:
    """A model that answers, from an exported one; see `load`."""
    settings = folder.settings
    preparation = Preparation(folder.tokenizer, settings.image_size, settings.text_length)
    if folder.weights == "onnx":
        return Model(OnnxProgram(folder.network, device, folder.pairs_at_once), preparation, settings)
    from umd.inference.loading import load_exported  # imports torch

    return Model(load_exported(folder, device), preparation, settings)
