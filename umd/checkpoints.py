"""Checkpoints: what is written beside the weights, and how one stage's weights reach the next."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from umd.encoders.pretrained import interpolate_positions
from umd.files import UserError

logger = logging.getLogger(__name__)

SETTINGS_KEY = "umd"
"""Where a checkpoint holds how it was made: the classes of module and data module, and their arguments."""

_SHAPED_BY = ("vision", "vision_options", "text", "text_options", "text_layers", "fusion_width", "fusion_layers")
"""The encoder's settings that its tensors follow, but `image_size`: positions are interpolated to it."""


def public_name(class_path: str) -> str:
    """The shortest name of a class: `umd.VQAClassifier` for `umd.modules.vqa.VQAClassifier`.

    Files move, what a package's face exports stays; the command line's parser writes classes by the same rule. A
    class that no face exports, or whose module is not loaded, keeps its name.
    """
    module, _, name = class_path.rpartition(".")
    wanted = getattr(sys.modules.get(module), name, None)
    parts = module.split(".")
    for face in (".".join(parts[:depth]) for depth in range(1, len(parts))):
        if wanted is not None and getattr(sys.modules.get(face), name, None) is wanted:
            return f"{face}.{name}"
    return class_path


def arguments_of(kind: type) -> frozenset[str]:
    """What a class takes, by name, also behind **kwargs: what the command line's parser finds for it."""
    found: list[str] = ArgumentParser().add_class_arguments(kind, fail_untyped=False)
    return frozenset(name.partition(".")[0] for name in found)


def to_plain(value: object) -> Any:  # noqa: ANN401 - any plain value
    """Dataclasses to dicts, tuples to lists, paths to text: what YAML and a weights-only reader know.

    Raises:
        TypeError: something else is in there.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} cannot go into a checkpoint's settings")


def read_checkpoint(path: str | Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint on the CPU, as data: nothing in it is executed.

    Args:
        path: the checkpoint.
        mapped: leave the tensors on the disk until they are read, for a look at what there is.

    Raises:
        UserError: no such file; or not a checkpoint, cut short, or one that would run code when read.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint '{path}'")
    if not is_zipfile(path):
        raise UserError(f"'{path}' is not a complete checkpoint: it was cut short or is another kind of file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        raise UserError(
            f"'{path}' holds more than plain data and is not read, since reading it could run code"
        ) from error
    except RuntimeError as error:
        raise UserError(f"'{path}' is not a complete checkpoint: it is damaged or another kind of archive") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"'{path}' is not a training checkpoint: it holds no 'state_dict'")
    return content


@dataclass(frozen=True)
class HandOver:
    """What happened when one stage's weights were put into the next.

    Attributes:
        loaded: number of tensors that were taken over.
        resized: position tables that were interpolated to another patch grid.
        missing: names that the new stage has under the prefixes and the checkpoint has not.
        left_over: names in the checkpoint that were not used.
        settings: what the earlier stage was made with.
    """

    loaded: int
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors taken over"]
        if self.resized:
            parts.append(f"positions interpolated: {', '.join(self.resized)}")
        if self.missing:
            parts.append(f"not in the checkpoint, left as initialised: {_by_module(self.missing)}")
        if self.left_over:
            parts.append(f"in the checkpoint, not needed here: {_by_module(self.left_over)}")
        return "; ".join(parts)


def _by_module(names: Sequence[str]) -> str:
    counts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{module} ({count} tensors)" for module, count in counts.items())


def hand_over(
    path: str | Path,
    module: nn.Module,
    prefixes: Sequence[str],
    position_tables: Mapping[str, int],
    translate: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> HandOver:
    """Put an earlier stage's weights into `module`.

    Args:
        path: the earlier stage's checkpoint.
        module: the new stage.
        prefixes: which weights are taken over, such as "encoder.".
        position_tables: names of learned position tables, with the patch grid that each must have.
        translate: gives the earlier stage's weights the names and shapes that they have in the new one.

    Raises:
        UserError: no name in common, a tensor of another shape, or a part (such as the encoder) that has
            tensors on one side only.
    """
    checkpoint = read_checkpoint(path)
    source = dict(translate(checkpoint["state_dict"]))
    settings = checkpoint.get("hyper_parameters", {})
    state, missing, resized = _fitting(path, source, settings, module, prefixes, position_tables)
    # Everything missing or left over is in the report, so nothing is passed over in silence.
    module.load_state_dict(state, strict=False)
    return HandOver(
        loaded=len(state),
        resized=tuple(resized),
        missing=tuple(sorted(missing)),
        left_over=tuple(sorted(source.keys() - state.keys())),
        settings=settings,
    )


def check_encoder(
    path: str | Path,
    module: nn.Module,
    position_tables: Mapping[str, int],
    translate: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> None:
    """Refuse an earlier stage's checkpoint of another encoder, without reading more than the shapes.

    Args:
        path: the earlier stage's checkpoint.
        module: the new stage, of which no more than the encoder need be there.
        position_tables: as in `hand_over`.
        translate: as in `hand_over`.

    Raises:
        UserError: as in `hand_over`.
    """
    checkpoint = read_checkpoint(path, mapped=True)
    settings = checkpoint.get("hyper_parameters", {})
    _fitting(path, translate(checkpoint["state_dict"]), settings, module, ("encoder.",), position_tables)


def _fitting(
    path: str | Path,
    source: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    module: nn.Module,
    prefixes: Sequence[str],
    position_tables: Mapping[str, int],
) -> tuple[dict[str, Tensor], set[str], list[str]]:
    """The weights to take over; which ones the earlier stage does not have; which positions were interpolated."""
    wanted = {name: value for name, value in module.state_dict().items() if name.startswith(tuple(prefixes))}
    state = {name: source[name] for name in wanted if name in source}
    if not state:
        raise UserError(
            f"'{path}' has nothing under {', '.join(prefixes)}: it is no checkpoint of an earlier stage "
            f"(it holds {_by_module(list(source)) or 'no weights'})"
        )
    resized = []
    for name, grid in position_tables.items():
        if name in state and state[name].shape != wanted[name].shape:
            state[name] = interpolate_positions(state[name], grid)
            resized.append(name)
    wrong = [
        f"{name}: {tuple(value.shape)} there, {tuple(wanted[name].shape)} here"
        for name, value in state.items()
        if value.shape != wanted[name].shape
    ]
    # A part is taken over whole or not at all: with some layers left as initialised it would be worth nothing.
    parts = {name.split(".")[0] for name in state}
    offered = {name for name in source if name.startswith(tuple(prefixes))}
    wrong += [
        f"{name}: only {'here' if name in wanted else 'there'}"
        for name in sorted(wanted.keys() ^ offered)
        if name.split(".")[0] in parts
    ]
    if wrong:
        other = _other_settings(settings, getattr(module, "hparams", {}))
        unexplained = [line for line in wrong if not _follows(line.partition(":")[0], other)]
        raise UserError(
            f"the weights in '{path}' are of another architecture than this stage's settings: "
            + "; ".join([*other.values(), *unexplained[:5]])
            + (f"; and {len(unexplained) - 5} more" if len(unexplained) > 5 else "")
            + (". Set --model.encoder as it is there, or start from another checkpoint" if other else "")
        )
    return state, wanted.keys() - state.keys(), resized


def _other_settings(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """What shapes the encoder and differs, by its name, in words; nothing where a stage does not say what it has."""
    theirs, ours = there.get("encoder"), here.get("encoder")
    if not (isinstance(theirs, Mapping) and isinstance(ours, Mapping)):
        return {}
    differ = [key for key in _SHAPED_BY if key in theirs and key in ours and theirs[key] != ours[key]]
    # The options of one encoder say nothing beside those of another.
    differ = [key for key in differ if key.removesuffix("_options") not in differ or not key.endswith("_options")]
    return {key: f"{key}: {theirs[key]} there, {ours[key]} here" for key in differ}


def _follows(tensor: str, other: Mapping[str, str]) -> bool:
    """Whether these settings explain a tensor that does not fit: what lies behind both encoders follows any of them."""
    part = next((part for part in ("vision", "text") if f".{part}." in tensor), None)
    return bool(other) if part is None else any(key.startswith(part) for key in other)
