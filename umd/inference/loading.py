"""From a checkpoint, or the weights of an exported model, to one that answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import umd
from umd.checkpoints import SETTINGS_KEY, read_checkpoint
from umd.encoders.interfaces import PairEncoder
from umd.files import UserError
from umd.inference.folder import Folder
from umd.inference.model import Model
from umd.inference.network import Network, Settings
from umd.inference.preparation import Preparation
from umd.inference.stage_network import StageNetwork
from umd.inference.torch_program import TorchProgram
from umd.inference.weights import read_weights
from umd.modules.base import Stage
from umd.modules.lineage import LINEAGE_KEY
from umd.run.renamed import with_names_of_today


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Model:
    """A model that answers, from a checkpoint alone; see `umd.load`.

    Raises:
        UserError: there is no such file; or it is no checkpoint of this project, or a broken one; or the device is
            not there.
    """
    return model_of(read_checkpoint(path, mapped=True), path, find_device(device))


def model_of(checkpoint: Mapping[str, Any], path: Path, device: torch.device) -> Model:
    """A model that answers, from a checkpoint's content.

    Raises:
        UserError: it does not say how it was made, lacks something, or its weights do not fit.
    """
    settings = with_names_of_today(checkpoint.get(SETTINGS_KEY))
    if not isinstance(settings, Mapping) or "model" not in settings:
        raise UserError(
            f"'{path}' does not say how it was made: it is no checkpoint of this project. "
            "A released UMD or M3AE checkpoint is read by `umd convert`"
        )
    stage = restore(checkpoint, settings["model"], path)
    network = StageNetwork(stage, device)
    image_size, length = int(stage.hparams["encoder"]["image_size"]), text_length(settings.get("data"), path)
    preparation = Preparation(tokenizer_in(checkpoint, path), image_size, length)
    red, green, blue = (round(255 * value) for value in stage.encoder.vision.mean.flatten().tolist())
    return Model(
        network,
        preparation,
        Settings(
            source=str(path),
            stage=settings["model"]["class_path"],
            task=network.task,
            names=network.names,
            link=network.link,
            image_size=image_size,
            text_length=length,
            blank=(red, green, blue),
            temperature=network.temperature,
        ),
    )


def load_exported(folder: Folder, device: str) -> Network:
    """The network of an exported model that torch runs.

    Raises:
        UserError: its file is broken, or the device is not there.
    """
    place = find_device(device)
    if folder.weights == "torch":
        return TorchProgram(folder.network, place, folder.pairs_at_once)
    content = {"state_dict": read_weights(folder.network), SETTINGS_KEY: {LINEAGE_KEY: folder.lineage}}
    return StageNetwork(restore(content, folder.made, folder.path), place)


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        UserError: there is no such device, or none in this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{name}' cannot be used ({reason}); 'cpu' always can") from error
    return device


def restore(checkpoint: Mapping[str, Any], made: Mapping[str, Any], path: Path) -> Stage[PairEncoder]:
    """The stage that a checkpoint holds, with its weights.

    Args:
        checkpoint: its content.
        made: the class and the arguments that it was made with.
        path: the file, for messages.

    Raises:
        UserError: the class is none of this project's; or the weights do not fit it.
    """
    face, _, name = made["class_path"].partition(".")
    kind = getattr(umd, name, None) if face == "umd" and name in umd.__all__ else None
    if not isinstance(kind, type) or not issubclass(kind, Stage):
        raise UserError(
            f"'{path}' is of the class '{made['class_path']}', which is no stage of umd: only those are loaded"
        )
    stage: Stage[PairEncoder] = kind(**made["init_args"])
    stage.on_load_checkpoint(dict(checkpoint))
    try:
        stage.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the weights in '{path}' do not fit the settings in it: {reason[:300]}") from error
    return stage


def tokenizer_in(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The tokenizer's state that the data module left in a checkpoint.

    Raises:
        UserError: there is none.
    """
    for value in checkpoint.values():
        if isinstance(value, Mapping) and isinstance(value.get("tokenizer"), Mapping):
            return dict(value["tokenizer"])
    raise UserError(f"'{path}' holds no tokenizer: it was trained without a data module of this project")


def text_length(data: Mapping[str, Any] | None, path: Path) -> int:
    """How many tokens of a text the training read.

    Raises:
        UserError: nothing tells.
    """
    length = (data or {}).get("init_args", {}).get("text_length")
    if length is None:
        raise UserError(f"'{path}' does not say how long the texts were that it was trained on (data.text_length)")
    return int(length)
