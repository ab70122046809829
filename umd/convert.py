"""`umd convert`: checkpoints of the released UMD and M3AE code, as checkpoints of this project."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal
from zipfile import is_zipfile

import lightning
import torch
import yaml
from torch import Tensor, nn

from umd.checkpoints import RECIPE_KEY, read_checkpoint
from umd.heads.image_decoder import sincos_positions
from umd.modules import MRPretrain, TDCalib, VQAClassifier
from umd.modules.base import StageModule
from umd.released_layout import TEACHER, Heads, decoder_settings, encoder_settings, rename_weights

logger = logging.getLogger(__name__)

Origin = Literal["umd", "m3ae"]
_POSITIONS = "mim_head.decoder_pos_embed"
_NOT_YET = {"cls_head": "classification", "irtr_head": "retrieval"}
_FRESH = ("image_feature_projection", "text_feature_projection", "matching_head")
# What training frameworks leave beside the weights: the types of their callbacks and settings.
_INERT = ("pytorch_lightning", "lightning", "argparse", "pathlib", "numpy", "omegaconf", "sacred", "m3ae")


class _Inert:
    """Stands in for a type that a released checkpoint names beside its weights: holds nothing, does nothing."""

    def __init__(self, *args: object) -> None: ...


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint and what happened on the way.

    Attributes:
        checkpoint: what is written, plain types and tensors only.
        stage: name of the stage that it belongs to.
        converted: number of released tensors that were taken over.
        dropped: released names without a use here, with the reason of each.
        notes: what a user should know before building on it.
    """

    checkpoint: dict[str, Any]
    stage: str
    converted: int
    dropped: Mapping[str, str]
    notes: tuple[str, ...]


def read_released(path: str | Path) -> dict[str, Tensor]:
    """The weights of a released checkpoint, read as data: nothing in it is imported or executed.

    The types of a training framework that such a file names beside its weights are read as empty stand-ins.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole checkpoint, or one that names types of other origin.
    """
    unsafe: list[str] = []
    if is_zipfile(path):
        try:
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except UnpicklingError as error:
            raise ValueError(f"'{path}' holds what no training writes and is not read: {error}") from error
    foreign = sorted(name for name in unsafe if name.split(".")[0] not in _INERT)
    if foreign:
        raise ValueError(
            f"'{path}' names {', '.join(foreign)} beside its weights and is not read, since no training "
            "framework writes that. If you trust the file, save its 'state_dict' alone into a new one"
        )
    with torch.serialization.safe_globals([(_Inert, name) for name in unsafe]):
        state: dict[str, Tensor] = read_checkpoint(path)["state_dict"]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"the 'state_dict' of '{path}' does not hold tensors alone")
    return state


def convert(
    state: Mapping[str, Tensor], origin: Origin, heads: Heads, answers: Sequence[str] | None = None
) -> Conversion:
    """Turn released weights into a checkpoint of this project.

    Args:
        state: the released `state_dict`.
        origin: whose code wrote it.
        heads: numbers of attention heads where they are not width / 64.
        answers: for a checkpoint with an answer head, the vocabulary in the head's order.

    Raises:
        ValueError: an unknown name, a tensor missing or of a wrong shape, a stage that is not there yet, or an
            answer head and a vocabulary that do not fit.
    """
    names = {name.split(".")[0] for name in state}
    for head, stage in _NOT_YET.items():
        if head in names:
            raise ValueError(f"the checkpoint is a {stage} model ('{head}'): that stage is not in this version yet")
    student = {name: value for name, value in state.items() if not name.startswith("ema.")}
    weights, dropped = rename_weights(student)
    module, notes = _build(weights, origin, heads, answers)
    _check_positions(student, module)
    if origin == "m3ae" and "mim_head" in names:
        notes.append("M3AE's image decoder was trained on the features of fusion layer 3; here it reads the last layer")

    if isinstance(module, MRPretrain | TDCalib) and module.rebuilds_features:
        held = {name.removeprefix(TEACHER): value for name, value in state.items() if name.startswith(TEACHER)}
        teacher, dead = rename_weights(held)
        own = {name: value for name, value in teacher.items() if name.startswith("encoder.")}
        dropped |= {TEACHER + name: reason for name, reason in dead.items()}
        heads_of_teacher = {name.split(".")[0] for name in teacher.keys() - own.keys()}
        dropped |= {
            name: "the teacher's own head: here it has none" for name in sorted(heads_of_teacher) for name in [name]
        }
        if not own:
            own = {name: value for name, value in weights.items() if name.startswith("encoder.")}
            notes.append("no teacher in the file: it starts as a copy of the student")
        weights |= {name.replace("encoder.", "teacher.", 1): value for name, value in own.items()}
    return _assemble(module, weights, dropped, notes)
