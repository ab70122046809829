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
from umd.released_layout import POSITIONS, TEACHER, Heads, decoder_settings, encoder_settings, is_head, rename_weights

logger = logging.getLogger(__name__)

Origin = Literal["umd", "m3ae"]
_NOT_YET = {"cls_head": "classification", "irtr_head": "retrieval"}
_FRESH = ("image_feature_projection", "text_feature_projection", "matching_head")
# What training frameworks leave beside the weights: the types of their callbacks and settings.
_INERT = ("pytorch_lightning", "lightning", "argparse", "pathlib", "numpy", "omegaconf", "sacred", "m3ae")


class _Inert:
    """Stands in for a type that a released checkpoint names beside its weights: holds nothing, does nothing."""

    def __init__(self, *args: object) -> None: ...


def _stand_in(full_name: str) -> type[_Inert]:
    module, _, name = full_name.rpartition(".")
    return type(name, (_Inert,), {"__module__": module})


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
        except (UnpicklingError, RuntimeError) as error:
            raise ValueError(
                f"'{path}' is not written as training checkpoints are, and is not read: {error}"
            ) from error
    foreign = sorted(name for name in unsafe if name.split(".")[0] not in _INERT)
    if foreign:
        raise ValueError(
            f"'{path}' names {', '.join(foreign)} beside its weights and is not read, since no training "
            "framework writes that. If you trust the file, save its 'state_dict' alone into a new one"
        )
    with torch.serialization.safe_globals([_stand_in(name) for name in unsafe]):
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
    for head, stage in _NOT_YET.items():
        if any(name.startswith(head) for name in state):
            raise ValueError(f"the checkpoint is a {stage} model ('{head}'): that stage is not in this version yet")
    student = {name: value for name, value in state.items() if not name.startswith(TEACHER)}
    weights, dropped = rename_weights(student)
    module, notes = _stage(weights, origin, heads, answers)
    if origin == "m3ae" and isinstance(module, MRPretrain | TDCalib):
        notes.append("M3AE trained its image decoder on an earlier fusion layer (mim_layer); here it reads the last")
    if POSITIONS in student:
        _check_positions(student[POSITIONS], module)

    held = {name.removeprefix(TEACHER): value for name, value in state.items() if name.startswith(TEACHER)}
    teacher, useless = rename_weights({name: value for name, value in held.items() if not is_head(name)})
    useless |= {name: "the teacher's own head, without a use here" for name in held if is_head(name)}
    if not (isinstance(module, MRPretrain | TDCalib) and module.has_teacher):
        useless |= dict.fromkeys(held, "this stage has no teacher")
    elif held:
        weights |= {name.replace("encoder.", "teacher.", 1): value for name, value in teacher.items()}
    else:
        notes.append("no teacher in the file: it starts as a copy of the student")
        copies = {name: value for name, value in weights.items() if name.startswith("encoder.")}
        weights |= {name.replace("encoder.", "teacher.", 1): value for name, value in copies.items()}
    dropped |= {TEACHER + name: reason for name, reason in useless.items()}

    fresh = _fresh_layers(module, weights)
    drawn = [name.removesuffix(".weight") for name in fresh if name.endswith(".weight")]
    notes += [f"{name} has no counterpart in the file and is drawn anew" for name in drawn]
    _check_complete(module, weights | fresh)
    return Conversion(
        checkpoint=_checkpoint(module, weights | fresh, origin, drawn),
        stage=type(module).__name__,
        converted=len(state) - len(dropped),
        dropped=dropped,
        notes=tuple(notes),
    )


def _stage(
    weights: Mapping[str, Tensor], origin: Origin, heads: Heads, answers: Sequence[str] | None
) -> tuple[StageModule, list[str]]:
    """The module that the weights belong to, without memory for its own, and notes on how it was chosen."""
    held = {name.split(".")[0] for name in weights}
    with torch.device("meta"):
        if "head" in held:
            count = weights["head.last.weight"].shape[0]
            if answers is None:
                raise ValueError(
                    f"the checkpoint has an answer head over {count} answers, which it does not name: give them, "
                    "one a line in the order of their labels, with --answers FILE"
                )
            if len(answers) != count:
                raise ValueError(f"--answers holds {len(answers)} answers, the checkpoint's answer head has {count}")
            if origin == "m3ae":
                return VQAClassifier(encoder_settings(weights, heads, "first"), answers=list(answers)), []
            note = (
                "pooling is 'mean_padded', as in the released fine-tuning: features then depend on how far texts "
                "are padded, which the released code does to the full text length"
            )
            return VQAClassifier(encoder_settings(weights, heads, "mean_padded"), answers=list(answers)), [note]
        if answers is not None:
            raise ValueError("--answers was given, but the checkpoint has no answer head")
        if not {"image_decoder", "text_decoder"} <= held:
            raise ValueError(f"no stage has these parts alone: {', '.join(sorted(held))}")
        encoder = encoder_settings(weights, heads, "first")
        reconstruction = decoder_settings(weights, heads, "umd" if origin == "umd" else "m3ae")
        stage = MRPretrain if "matching_head" in held else TDCalib
        return stage(encoder, reconstruction=reconstruction), []


def _check_positions(table: Tensor, module: StageModule) -> None:
    """The released decoder's fixed positions must be those that are computed here, since they are not kept."""
    grid = module.encoder.vision.grid
    if table.shape[1] != grid * grid + 1 or (table[0] - sincos_positions(table.shape[2], grid)).abs().max() > 1e-4:
        raise ValueError(f"'{POSITIONS}' are not the fixed sine-cosine positions of {grid} x {grid} patches")


def _fresh_layers(module: StageModule, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Linear layers that the released model does not have, drawn anew from a fixed seed."""
    fresh: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in _FRESH:
            layer = getattr(module, name, None)
            if isinstance(layer, nn.Linear) and f"{name}.weight" not in weights:
                drawn = nn.Linear(layer.in_features, layer.out_features)
                fresh |= {f"{name}.{part}": value for part, value in drawn.state_dict().items()}
    return fresh


def _check_complete(module: StageModule, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the weights are exactly the module's, in name and shape."""
    wanted = module.state_dict()
    wrong = [f"{name} is missing" for name in wanted.keys() - weights.keys()]
    wrong += [f"{name} has no place" for name in weights.keys() - wanted.keys()]
    wrong += [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if wrong:
        raise ValueError(
            f"the weights are not a whole {type(module).__name__}: {'; '.join(sorted(wrong)[:5])}"
            + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        )


def _checkpoint(
    module: StageModule, weights: Mapping[str, Tensor], origin: Origin, fresh: Sequence[str]
) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": dict(weights),
    }
    module.on_save_checkpoint(checkpoint)
    checkpoint[RECIPE_KEY]["converted"] = {"from": origin, "drawn_anew": list(fresh)}
    return checkpoint


def _report(conversion: Conversion, out: Path) -> None:
    logger.info("%s: %s from %d released tensors", out, conversion.stage, conversion.converted)
    for name, reason in conversion.dropped.items():
        logger.info("dropped %s (%s)", name, reason)
    for note in conversion.notes:
        logger.warning("note: %s", note)
    encoder = {key: value for key, value in conversion.checkpoint["hyper_parameters"]["encoder"].items() if value}
    settings = {"model": {"init_args": {"encoder": encoder}}}
    logger.info(
        "A stage that starts from it (--model.init_from %s) needs these encoder settings; image_size may differ:\n%s",
        out,
        yaml.safe_dump(settings, sort_keys=False),
    )


def main(arguments: list[str]) -> None:
    """Read, convert, write, and say what was done."""
    parser = argparse.ArgumentParser(prog="umd convert", description=__doc__.partition(": ")[2] if __doc__ else None)
    parser.add_argument("--from", dest="origin", choices=("umd", "m3ae"), required=True, help="whose code wrote it")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the released .ckpt file")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--answers", type=Path, help="for an answer head: its answers, one a line, in label order")
    for name in asdict(Heads()):
        parser.add_argument(f"--{name}", type=int, help="attention heads where they are not width / 64")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    if given.out.exists():
        raise FileExistsError(f"'{given.out}' exists: give another --out, or delete it")
    if given.answers and not given.answers.is_file():
        raise FileNotFoundError(f"there is no file of answers '{given.answers}'")
    answers = given.answers.read_text(encoding="utf-8").splitlines() if given.answers else None
    heads = Heads(**{name: getattr(given, name) for name in asdict(Heads())})
    conversion = convert(read_released(given.checkpoint), given.origin, heads, answers)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(conversion.checkpoint, given.out)
    _report(conversion, given.out)
