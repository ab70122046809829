"""What is typed after `umd fit|validate|test|predict`: our own options, and a checkpoint's settings before all."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionYesNo
from lightning.pytorch.cli import LightningArgumentParser

from umd.commands.configs import config_text, settings_in, typed_configs, with_found_configs
from umd.commands.early import LIGHTNINGS_OWN_NAMES, value_of
from umd.encoders import tokenizer_for
from umd.files import UserError
from umd.run.paths import find_checkpoint, folder_of
from umd.run.settings import check_classes, settings_of

logger = logging.getLogger("umd")

# Set from the model's settings, never by hand.
_LINKED = ("tokenizer", "image_size")


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line that is ready for the parser.

    Attributes:
        typed: the command and its options, a checkpoint's settings first, so that whatever the user gives wins.
        restored: the settings that were taken from a checkpoint; empty without one.
        folder: the run folder in which the command goes on, since the checkpoint lies in it; None: another one.
        own_data_seed: whether the data has a seed of its own, and not the training's.
        own_precision: whether the precision was typed, and is no config's.
    """

    typed: list[str]
    restored: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    own_data_seed: bool = False
    own_precision: bool = False


def prepare(given: Sequence[str]) -> Arguments:
    """What the parser is to read in the place of what was typed.

    Args:
        given: the command and its options, as typed.

    Raises:
        UserError: something is set that follows from the model; or a config is not there; or the checkpoint cannot
            be used.
    """
    command, *options = given
    for key in _LINKED:
        if any(value_of(f"--data.{part}{key}", options) is not None for part in ("", "init_args.")):
            raise UserError(f"--data.{key} follows from the model's encoder: set --model.encoder instead")
    options = nulls_as_config(with_found_configs(options))
    if command != "fit":
        options = with_found_checkpoint(options)
    path = value_of("--ckpt_path", options)
    restored: dict[str, Any] = {}
    folder = None
    if path is not None and path not in LIGHTNINGS_OWN_NAMES:
        restored = settings_of(path, training=command == "fit")
        check_classes(restored, path, _all_that_was_given(options))
        options = [f"--config={json.dumps(_without_linked(restored))}", *options]
        moved = any(value_of(option, options) is not None for option in ("--name", "--runs"))
        folder = None if moved else folder_of(path)
    return Arguments(
        [command, *options],
        restored,
        folder,
        own_data_seed=_sets_data_seed(options),
        own_precision=value_of("--trainer.precision", options) is not None,
    )


def nulls_as_config(options: Sequence[str]) -> list[str]:
    """Rewrite `--model.encoder.text_weights null` as a config, where null means null.

    On the command line, jsonargparse turns null two levels below a class into the text "None".
    """
    rewritten: list[str] = []
    rest = iter(options)
    for option in rest:
        key, equals, value = option.partition("=")
        part, *path = key.removeprefix("--").split(".")
        nested = key.startswith("--") and part in ("model", "data") and len(path) > 1
        if nested and not equals:
            value = next(rest, "")
        if nested and value == "null":
            content: Any = None
            for name in reversed(path[1:] if path[0] == "init_args" else path):
                content = {name: content}
            rewritten.append(f"--config={json.dumps({part: {'init_args': content}})}")
        else:
            rewritten += [option] if equals or not nested else [option, value]
    return rewritten


def with_found_checkpoint(options: Sequence[str]) -> list[str]:
    """The same options, the folder of a run replaced by the checkpoint that it means, which the log names."""
    path = value_of("--ckpt_path", options)
    if path is None or not Path(path).is_dir():
        return [*options]
    found = find_checkpoint(Path(path))
    logger.info("checkpoint: %s", found)
    return [
        str(found) if before == "--ckpt_path" else option.replace(f"--ckpt_path={path}", f"--ckpt_path={found}")
        for before, option in pairwise(["", *options])
    ]


def add_options(parser: LightningArgumentParser) -> None:
    """Add the run's name and folder, and the links that spare typing things twice."""
    parser.add_argument("--name", default="default", help="name of the run; its folder is RUNS/STAGE/NAME")
    parser.add_argument("--runs", default="runs", help="folder of all runs")
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="let a training replace an earlier one of that name"
    )
    parser.add_argument(
        "--callback",
        nargs="+",
        type=str,
        default=[],
        metavar="NAME=off|NAME.ARGUMENT=VALUE",
        help="change one of the configs' callbacks: leave it out, or set an argument",
    )
    parser.add_argument(
        "--test_after_fit",
        type=bool,
        default=True,
        help="end a training with a test of its best checkpoint",
    )
    parser.link_arguments(
        tuple(f"model.init_args.encoder.text{part}" for part in ("", "_weights", "_options")),
        "data.init_args.tokenizer",
        compute_fn=tokenizer_for,
    )
    parser.link_arguments("model.init_args.encoder.image_size", "data.init_args.image_size")


def add_test_options(parser: LightningArgumentParser) -> None:
    """Add what `umd test` alone takes."""
    parser.add_argument(
        "--controls",
        action=ActionYesNo,
        nargs="?",
        default=False,
        help="ask the questions again with blank, noisy and other images, shuffled words and reworded",
    )


def add_predict_options(parser: LightningArgumentParser) -> None:
    """Add what `umd predict` alone takes."""
    parser.add_argument(
        "--split",
        type=Literal["train", "validation", "test"],
        default="test",
        help="the split that is answered, in its order and without augmentation",
    )


def _without_linked(settings: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings but those that the parser sets itself, from the model's."""
    if "data" not in settings:
        return settings
    own = {key: value for key, value in settings["data"]["init_args"].items() if key not in _LINKED}
    return settings | {"data": settings["data"] | {"init_args": own}}


def _sets_data_seed(options: Sequence[str]) -> bool:
    """Whether the command line or a config says which seed the data has."""
    if any(value_of(f"--data.{part}seed", options) is not None for part in ("", "init_args.")):
        return True
    for config in typed_configs(options):
        content = settings_in(config)
        data = content.get("data") if isinstance(content, dict) else None
        if isinstance(data, dict) and "seed" in (data.get("init_args") or {}):
            return True
    return False


def _all_that_was_given(options: Sequence[str]) -> str:
    """The command line, and what the configs say that it names."""
    return "\n".join([*options, *map(config_text, typed_configs(options))])
