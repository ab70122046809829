"""What lies in the folder of an exported model, and what `settings.json` says. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from umd.files import UserError
from umd.inference.network import Settings

FORMAT: Final = "umd-model"
VERSION: Final = 1
"""The version of `settings.json`; it grows where a field changes its meaning or goes, not where one is added."""

SETTINGS, TOKENIZER, NAMES, CARD = "settings.json", "tokenizer.json", "names.json", "README.md"

Weights = Literal["safetensors", "onnx", "torch"]
"""How the network is kept: its weights alone, or a program in which they are."""

FILES: Final[dict[Weights, str]] = {"safetensors": "model.safetensors", "onnx": "model.onnx", "torch": "model.pt2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """An exported model, without its network.

    Attributes:
        path: the folder.
        weights: how its network is kept.
        settings: what must be known of it.
        tokenizer: its plain state.
        made: the class that was trained (`class_path`) and its arguments (`init_args`), for "safetensors".
        lineage: the trainings behind its weights, the last one first (`umd.protocols.Training`).
        pairs_at_once: most pairs that its program is to be given at once, for the sake of memory; None: any number.
    """

    path: Path
    weights: Weights
    settings: Settings
    tokenizer: Mapping[str, Any]
    made: Mapping[str, Any]
    lineage: list[dict[str, Any]]
    pairs_at_once: int | None

    @property
    def network(self) -> Path:
        """The file of its network."""
        return self.path / FILES[self.weights]


def is_exported(path: Path) -> bool:
    """Whether a folder holds an exported model of any version."""
    try:
        content = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def read_folder(path: Path) -> Folder:
    """What an exported model's folder says.

    Raises:
        UserError: a file is missing or broken, or the folder was written by a later version.
    """
    content = _read(path / SETTINGS)
    if content.get("version") != VERSION:
        raise UserError(
            f"'{path}' is of version {content.get('version')} of exported models, and this umd reads version "
            f"{VERSION}: install the umd that wrote it ({content.get('versions', {}).get('umd', 'unknown')})"
        )
    try:
        weights: Weights = content["weights"]
        folder = Folder(
            path=path,
            weights=weights,
            settings=Settings(
                source=str(path),
                stage=content["stage"],
                task=content["task"],
                names=tuple(_read(path / NAMES)),
                link=content["link"],
                image_size=content["image_size"],
                text_length=content["text_length"],
                blank=tuple(content["blank"]),
                temperature=content.get("temperature", 1.0),  # older folders have none
            ),
            tokenizer={
                "backend": json.dumps(_read(path / TOKENIZER)),
                "special_tokens": content["special_tokens"],
            },
            made={"class_path": content["stage"], "init_args": content["init_args"]},
            lineage=content["lineage"],
            pairs_at_once=content["pairs_at_once"],
        )
        missing = not folder.network.is_file()
    except KeyError as error:
        raise UserError(f"'{path / SETTINGS}' does not say {error}: it is no settings file of umd") from error
    if missing:
        raise UserError(f"'{path}' is not complete: there is no {folder.network.name}")
    return folder


def check_place(out: Path, overwrite: bool) -> None:
    """Refuse to write where something else is.

    Raises:
        UserError: it is a file, or a folder with something in it that is no earlier export, or must not be replaced.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out: '{out}' is a file; give a folder")
    if any(out.iterdir()):
        if not is_exported(out):
            raise UserError(f"--out: '{out}' is not empty, and what is in it is no exported model: give another folder")
        if not overwrite:
            raise UserError(f"--out: '{out}' holds an exported model: --overwrite puts this one in its place")


def _read(path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"'{path.parent}' is not complete: there is no {path.name}") from error
    except ValueError as error:
        raise UserError(f"'{path}' is broken: {error}") from error
