"""Whether a training in a step's folder is the step's, also where it was started or gone on with by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from umd.commands.callback_options import with_options
from umd.files import UserError
from umd.reproduce.steps import Step, Workspace

_PARTS = ("model", "data", "seed_everything", "trainer")
_LEARNED = ("answers", "classes")
"""Settings that a training fills in from its data where they are left open."""

_FOLLOWS = (
    "trainer.default_root_dir",  # from where it lies
    "trainer.logger",
    "data.init_args.tokenizer",  # from the model's encoder
    "data.init_args.image_size",
)
_SET_BY_FIT = "enable_version_counter"  # of a ModelCheckpoint


def first_difference(step: Step, workspace: Workspace, program: Sequence[str]) -> str | None:
    """The first setting in which the training in the step's folder departs from the step, None where all are equal.

    A training's settings are those in its last checkpoint: after it was gone on with under other ones, the later.

    Args:
        step: a training.
        workspace: where it lies.
        program: how `umd` is started, to ask it what the step's command line comes to.

    Raises:
        UserError: the step's command line or the checkpoint cannot be read.
    """
    return difference(_wanted(step, workspace, program), _there(workspace.checkpoint(step)))


def difference(wanted: object, there: object, at: str = "") -> str | None:
    """The first setting in which two trainings differ, in words; None where they are the same."""
    name = at.rpartition(".")[2]
    if at in _FOLLOWS or name == _SET_BY_FIT or (name in _LEARNED and wanted is None):
        return None
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        keys = dict.fromkeys([*wanted, *there])
        found = (difference(wanted.get(key), there.get(key), f"{at}.{key}" if at else str(key)) for key in keys)
    elif isinstance(wanted, list) and isinstance(there, list) and len(wanted) == len(there):
        found = (difference(one, other, f"{at}[{i}]") for i, (one, other) in enumerate(zip(wanted, there, strict=True)))
    else:
        return None if _equal(wanted, there) else f"{at.replace('.init_args', '')} is {there}, not {wanted}"
    return next((line for line in found if line), None)


def _equal(wanted: object, there: object) -> bool:
    if isinstance(wanted, str) and isinstance(there, str) and wanted != there:
        # Folders may be written from another one; some stand behind the class of their data set, CLASS=FOLDER.
        (kind, *folder), (other_kind, *other_folder) = wanted.split("=", 1), there.split("=", 1)
        if folder and other_folder:
            return kind == other_kind and _equal(folder[0], other_folder[0])
        return Path(wanted).resolve() == Path(there).resolve()
    return wanted == there


def _wanted(step: Step, workspace: Workspace, program: Sequence[str]) -> dict[str, Any]:
    """What the step's command line comes to, as `umd fit` itself says."""
    words = [*workspace.words(step)[1:], "--print_config"]
    asked = subprocess.run([*program, *words], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise UserError(f"the settings of {step} cannot be read: {asked.stderr.strip()[-500:]}")
    settings: dict[str, Any] = yaml.safe_load(asked.stdout)
    trainer = settings["trainer"]
    trainer["callbacks"] = with_options(trainer["callbacks"] or [], settings.get("callback") or [])
    return {key: settings[key] for key in _PARTS}


def _there(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its training; where its weights came from before anything else."""
    from umd.checkpoints import SETTINGS_KEY, read_checkpoint
    from umd.run.renamed import with_names_of_today

    settings: dict[str, Any] = with_names_of_today(read_checkpoint(checkpoint).get(SETTINGS_KEY, {}))
    origin = settings.get("started_from")
    if origin is None or "trainer" not in settings:
        raise UserError(f"{checkpoint} does not say with which settings it was made")
    model = settings["model"]["init_args"]
    model["init_from"] = origin["init_from"]
    model["encoder"] |= {key: origin[key] for key in ("vision_weights", "text_weights")}
    return {key: settings.get(key) for key in _PARTS}
