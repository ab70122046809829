"""What has another name than when a checkpoint, a config or a habit was made: one table for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

FACES = ("umd", "callbacks", "datamodules")
"""The packages whose classes a checkpoint may name; what a face exports keeps its name when files move."""

RENAMED_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "datamodules.PhantomRetrieval": {"other_texts": "negatives"},
    "datamodules.ROCORetrieval": {"other_texts": "negatives"},
}
"""For each class, by its public name, the arguments that were called otherwise: old name to new."""

OPTIONS = {"umd": "model", "datamodules": "data"}
"""The option that chooses a class of each package."""


def public_class_path(class_path: str) -> str:
    """`datamodules.ROCORetrieval` for whichever file below `datamodules` the class lay in; others as they are."""
    face, _, rest = class_path.partition(".")
    name = rest.rpartition(".")[2]
    if face in FACES and name in getattr(import_module(face), "__all__", ()):
        return f"{face}.{name}"
    return class_path


def option_of_today(class_path: str, argument: str) -> str | None:
    """The option for what was this argument of a class (under whatever name that is given); None: not renamed."""
    short = class_path.rpartition(".")[2]
    for path, today in RENAMED_ARGUMENTS.items():
        face, _, name = path.partition(".")
        if name == short and argument in today:
            return f"--{OPTIONS[face]}.{today[argument]}"
    return None


def with_names_of_today(settings: Any) -> Any:  # noqa: ANN401 - nested plain values
    """The same settings, each class under its public name and each argument under the name that it has now."""
    if isinstance(settings, Mapping):
        settings = {key: with_names_of_today(value) for key, value in settings.items()}
        if "class_path" in settings:
            settings["class_path"] = public_class_path(settings["class_path"])
            today = RENAMED_ARGUMENTS.get(settings["class_path"], {})
            if settings.get("init_args"):
                arguments = settings["init_args"].items()
                settings["init_args"] = {today.get(name, name): value for name, value in arguments}
        return settings
    return [with_names_of_today(value) for value in settings] if isinstance(settings, list) else settings
