"""Where configs are found: where the user says, else among those that come with umd."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from umd.files import UserError

logger = logging.getLogger("umd")

RENAMED = {
    "recipe/calibrate_melinda.yaml": "paper/calibrate/melinda.yaml",
    "recipe/calibrate_roco.yaml": "paper/calibrate/roco.yaml",
    "recipe/calibrate_slake.yaml": "paper/calibrate/slake.yaml",
    "recipe/calibrate_vqa_med_2019.yaml": "paper/calibrate/vqa_med_2019.yaml",
    "recipe/calibrate_vqa_rad.yaml": "paper/calibrate/vqa_rad.yaml",
    "recipe/classification_melinda.yaml": "paper/classification/melinda.yaml",
    "recipe/contrastive_pretrain_roco.yaml": "paper/contrastive_pretrain.yaml",
    "recipe/pretrain.yaml": "paper/pretrain.yaml",
    "recipe/retrieval_roco.yaml": "paper/retrieval/roco.yaml",
    "recipe/vqa_generation_slake.yaml": "paper/vqa_generation/slake.yaml",
    "recipe/vqa_generation_vqa_rad.yaml": "paper/vqa_generation/vqa_rad.yaml",
    "recipe/vqa_slake.yaml": "paper/vqa/slake.yaml",
    "recipe/vqa_vqa_med_2019.yaml": "paper/vqa/vqa_med_2019.yaml",
    "recipe/vqa_vqa_rad.yaml": "paper/vqa/vqa_rad.yaml",
    "scale/ggp.yaml": "paper/ggp_encoders.yaml",
    "scale/paper.yaml": "paper/encoders.yaml",
    "scale/small.yaml": "small/encoders.yaml",
}
"""Configs that had another name once, below configs/, and the name that they have now."""

_INLINE = re.compile(r"\s*\{|.*:(\s|$)", re.DOTALL)


def shipped_folder() -> Path:
    """The configs that come with umd: inside the installed package, or at the top of the repository."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def is_inline(config: str) -> bool:
    """Whether a value of --config is the settings themselves, in JSON or YAML, and no path."""
    return not _is_file(config) and _INLINE.match(config) is not None


def find_config(given: str) -> Path:
    """The file that a value of --config means; the log says so where it is not the one of that very path.

    A path that does not exist is looked up among the shipped configs, with or without `configs/` in front.

    Raises:
        UserError: there is no such file; where it had that name once, the message says which one it has now.
    """
    path = Path(given).expanduser()
    if _is_file(given):
        return path
    below = path.parts[len(path.parts) - path.parts[::-1].index("configs") :] if "configs" in path.parts else path.parts
    name = "/".join(below)
    if name in RENAMED:
        raise UserError(f"--config: {given} is {given.removesuffix(name)}{RENAMED[name]} now")
    shipped = {file.relative_to(shipped_folder()).as_posix(): file for file in shipped_folder().rglob("*.yaml")}
    if name in shipped and path.parts in (below, ("configs", *below)):
        logger.info("config %s: there is none here, so umd's own is taken, %s", given, shipped[name])
        return shipped[name]
    near = get_close_matches(name, shipped, n=1, cutoff=0.8)
    meant = f"; among umd's own there is configs/{near[0]}" if near else ""
    raise UserError(f"--config: there is no file '{given}'{meant}")


def config_text(config: str) -> str:
    """The text of a config, be it a file or typed."""
    return config if is_inline(config) else Path(config).read_text(encoding="utf-8")


def settings_in(config: str) -> Any:  # noqa: ANN401 - whatever YAML can hold
    """What a value of --config holds, be it a file or the settings themselves.

    Raises:
        UserError: it is no YAML, or the file cannot be read.
    """
    name = "what is typed" if is_inline(config) else f"'{config}'"
    try:
        return yaml.safe_load(config_text(config))
    except OSError as error:
        raise UserError(f"--config: {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config: {name} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"--config: {name}{where}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config: {name} is not YAML: {' '.join(str(error).split())}") from error


def typed_configs(arguments: Sequence[str]) -> list[str]:
    """The configs among arguments that `with_found_configs` made."""
    return [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]


def with_found_configs(arguments: Sequence[str]) -> list[str]:
    """The same arguments, each path of a config replaced by that of the file that it means.

    Raises:
        UserError: a config is not there.
    """
    found: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option not in ("--config", "-c"):
            found.append(argument)
            continue
        given = value if equals else next(rest, None)
        if given is None:
            found.append(argument)  # the parser says what is missing
        else:
            found.append(f"--config={given if is_inline(given) else find_config(given)}")
    return found


def _is_file(given: str) -> bool:
    try:
        return Path(given).expanduser().is_file()
    except OSError:  # longer than a path can be
        return False
