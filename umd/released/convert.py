"""`umd convert`: checkpoints of the released UMD and M3AE code, as checkpoints of this project."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import lightning
import torch
import yaml
from torch import Tensor, nn

from umd.checkpoints import SETTINGS_KEY, read_checkpoint
from umd.commands.tool_parser import ToolParser
from umd.files import UserError, writing
from umd.heads.image_decoder import sincos_positions
from umd.modules import MRPretrain, TDCalib
from umd.modules.lineage import LINEAGE_KEY, this_training
from umd.modules.umd_stage import UMDStage
from umd.protocols import UNKNOWN
from umd.released.layout import MATCHING, POSITIONS, TEACHER, Heads, is_head, rename_weights, task_head
from umd.released.stage import Origin, build_stage

logger = logging.getLogger(__name__)

_FRESH = ("image_feature_projection", "text_feature_projection")
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
        UserError: no such file; or not a whole checkpoint, or one that names types of other origin.
    """
    unsafe: list[str] = []
    if is_zipfile(path):
        try:
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except (UnpicklingError, RuntimeError) as error:
            raise UserError(f"'{path}' is not written as training checkpoints are, and is not read: {error}") from error
    foreign = sorted(name for name in unsafe if name.split(".")[0] not in _INERT)
    if foreign:
        raise UserError(
            f"'{path}' names {', '.join(foreign)} beside its weights and is not read, since no training "
            "framework writes that. If you trust the file, save its 'state_dict' alone into a new one"
        )
    with torch.serialization.safe_globals([_stand_in(name) for name in unsafe]):
        state: dict[str, Tensor] = read_checkpoint(path)["state_dict"]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"the 'state_dict' of '{path}' does not hold tensors alone")
    return state


def convert(
    state: Mapping[str, Tensor],
    origin: Origin,
    heads: Heads,
    answers: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Conversion:
    """Turn released weights into a checkpoint of this project.

    Args:
        state: the released `state_dict`.
        origin: whose code wrote it.
        heads: numbers of attention heads where they are not width / 64.
        answers: for a checkpoint with an answer head, the vocabulary in the head's order.
        classes: for a checkpoint with a class head, the names of the classes in the head's order.

    Raises:
        UserError: an unknown name, a tensor missing or of a wrong shape, a head and names that do not fit, or
            the heads of several tasks.
    """
    student = {name: value for name, value in state.items() if not name.startswith(TEACHER)}
    task = task_head(student)
    kept = {name: value for name, value in student.items() if task != "irtr_head" or not name.startswith(MATCHING)}
    weights, dropped = rename_weights(kept)
    dropped |= dict.fromkeys(student.keys() - kept.keys(), "retrieval scores by 'irtr_head' in its place")
    module, notes = build_stage(weights, origin, heads, task, answers, classes)
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


def _check_positions(table: Tensor, module: UMDStage) -> None:
    """The released decoder's fixed positions must be those that are computed here, since they are not kept."""
    grid = module.encoder.vision.grid
    if table.shape[1] != grid * grid + 1 or (table[0] - sincos_positions(table.shape[2], grid)).abs().max() > 1e-4:
        raise UserError(f"'{POSITIONS}' are not the fixed sine-cosine positions of {grid} x {grid} patches")


def _fresh_layers(module: UMDStage, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


def _check_complete(module: UMDStage, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError unless the weights are exactly the module's, in name and shape."""
    wanted = module.state_dict()
    wrong = [f"{name} is missing" for name in wanted.keys() - weights.keys()]
    wrong += [f"{name} has no place" for name in weights.keys() - wanted.keys()]
    wrong += [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if wrong:
        raise UserError(
            f"the weights are not a whole {type(module).__name__}: {'; '.join(sorted(wrong)[:5])}"
            + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        )


def _checkpoint(
    module: UMDStage, weights: Mapping[str, Tensor], origin: Origin, fresh: Sequence[str]
) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": dict(weights),
    }
    module.on_save_checkpoint(checkpoint)
    # Its authors pre-train on captions, which no protocol splits; what came after is not known here.
    protocol = None if isinstance(module, MRPretrain) else UNKNOWN
    checkpoint[SETTINGS_KEY][LINEAGE_KEY] = [
        this_training(checkpoint[SETTINGS_KEY]["model"]["class_path"], None) | {"protocol": protocol}
    ]
    checkpoint[SETTINGS_KEY]["converted"] = {"from": origin, "drawn_anew": list(fresh)}
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


def _read_names(path: Path | None, what: str) -> list[str] | None:
    if path is not None and not path.is_file():
        raise UserError(f"there is no file of {what} '{path}'")
    return path.read_text(encoding="utf-8").splitlines() if path else None


def main(arguments: list[str]) -> None:
    """Read, convert, write, and say what was done."""
    parser = ToolParser(prog="umd convert", description=__doc__.partition(": ")[2] if __doc__ else None)
    parser.add_argument("--from", dest="origin", choices=("umd", "m3ae"), required=True, help="whose code wrote it")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the released .ckpt file")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    for option, kind in (("answers", "an answer"), ("classes", "a class")):
        parser.add_argument(f"--{option}", type=Path, help=f"for {kind} head: its {option}, one a line, in label order")
    for name in asdict(Heads()):
        parser.add_argument(f"--{name}", type=int, help="attention heads where they are not width / 64")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    if given.out.exists():
        raise UserError(f"'{given.out}' exists: give another --out, or delete it")
    answers, classes = (_read_names(getattr(given, option), option) for option in ("answers", "classes"))
    heads = Heads(**{name: getattr(given, name) for name in asdict(Heads())})
    conversion = convert(read_released(given.checkpoint), given.origin, heads, answers, classes)
    with writing(given.out):
        given.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(conversion.checkpoint, given.out)
    _report(conversion, given.out)
