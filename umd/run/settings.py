"""What a checkpoint says about how it was made: how that is written, read, and whether it may be taken over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from umd.checkpoints import SETTINGS_KEY, read_checkpoint
from umd.files import UserError
from umd.run.paths import stage_of
from umd.run.renamed import FACES, with_names_of_today

_TO_GO_ON = {"optimizer state": "optimizer_states", "learning rate schedule": "lr_schedulers", "position": "loops"}

# Those that call nothing that their settings name, and write nowhere but into the run folder.
_AVERAGING = ("EMAWeightAveraging", "StochasticWeightAveraging", "WeightAveraging")  # with their own way of averaging
_HARMLESS_CALLBACKS = (
    "DeviceStatsMonitor",
    "EarlyStopping",
    "GradientAccumulationScheduler",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "Timer",
)


class TrainerSettings(Callback):
    """Writes the trainer's settings and the seed into each checkpoint, so that a training can go on from it alone.

    Args:
        config: the resolved config of the training, in plain types.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        # The folder is where the checkpoint lies; loggers follow it.
        kept = {key: value for key, value in config["trainer"].items() if key not in ("default_root_dir", "logger")}
        # The rate that was found stands in the model's settings; a training that goes on does not look again.
        kept["callbacks"] = [one for one in kept.get("callbacks") or [] if not one["class_path"].endswith("RateFinder")]
        self.settings = {"trainer": kept, "seed_everything": config["seed_everything"]}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add them to what the stage and its data say of themselves."""
        checkpoint.setdefault(SETTINGS_KEY, {}).update(self.settings)


def settings_of(path: str | Path, *, training: bool = False) -> dict[str, Any]:
    """What a checkpoint says about how it was made: "model" and "data", as configs have them, under today's names.

    Args:
        path: the checkpoint.
        training: what a training needs to go on too: "trainer", "seed_everything".

    Raises:
        UserError: the checkpoint says nothing, so it was not written by this project.
    """
    content = read_checkpoint(path)
    found: Any = content.get(SETTINGS_KEY)
    if not isinstance(found, dict):
        raise UserError(
            f"'{path}' does not say how it was made: it is no checkpoint of this project. "
            "A released UMD or M3AE checkpoint is read by `umd convert`"
        )
    if training and (lacks := [name for name, key in _TO_GO_ON.items() if key not in content]):
        raise UserError(
            f"'{path}' holds no {', '.join(lacks)}: a training cannot go on from it. "
            f"A new one can start from its weights: --model.init_from {path}"
        )
    wanted = ("model", "data", "trainer", "seed_everything") if training else ("model", "data")
    return {key: with_names_of_today(found[key]) for key in wanted if key in found}


def check_classes(settings: Mapping[str, Any], path: str | Path, typed: str) -> None:
    """Refuse classes that a checkpoint names and that are not known to be harmless: it is data, and names no code.

    Args:
        settings: what `settings_of` found.
        path: the checkpoint, for the message.
        typed: what the user gave; a class that is named there too is the user's own choice.

    Raises:
        UserError: names the first such class.
    """
    for name, arguments in _classes(settings):
        package, _, short = name.rpartition(".")
        own = name.split(".")[0] in FACES
        calls = [key for key, value in arguments.items() if key.endswith("avg_fn") and value is not None]
        known = short in _HARMLESS_CALLBACKS or (short in _AVERAGING and not calls)
        known = known and package.startswith("lightning.pytorch.callbacks")
        if not (own or known or name in typed):
            raise UserError(
                f"'{path}' asks for the class '{name}', which is not one of this project's. "
                "If you want it, name it yourself: in a --config, or on the command line"
            )


def check_same_stage(settings: Mapping[str, Any], path: str | Path, class_path: str) -> None:
    """Refuse to go on with a checkpoint of one stage as another.

    Raises:
        UserError: the checkpoint's module is of another class than `class_path`.
    """
    there = settings["model"]["class_path"] if "model" in settings else class_path
    if there.rsplit(".", 1)[-1] != class_path.rsplit(".", 1)[-1]:
        raise UserError(
            f"'{path}' is a checkpoint of {stage_of(there)} ({there}), not of {stage_of(class_path)} ({class_path}). "
            f"To start from its weights: --model.init_from {path}"
        )


def check_same_data(settings: Mapping[str, Any], path: str | Path, class_path: str) -> None:
    """Refuse to go on with a training on another data set: its answers and its place in an epoch would be the old ones.

    Raises:
        UserError: the checkpoint's data module is of another class than `class_path`.
    """
    there = settings["data"]["class_path"] if "data" in settings else class_path
    if there.rsplit(".", 1)[-1] != class_path.rsplit(".", 1)[-1]:
        raise UserError(
            f"'{path}' is of a training on {there}, which goes on with that alone, not with {class_path}. "
            f"To start a new one from its weights: --model.init_from {path}"
        )


def misfit(path: str | Path, state: Mapping[str, Tensor]) -> str | None:
    """What of a checkpoint's weights does not fit a module with this state; None where all does."""
    there = read_checkpoint(path)["state_dict"]
    wrong = [f"{name} is missing there" for name in state.keys() - there.keys()]
    wrong += [f"{name} is not known here" for name in there.keys() - state.keys()]
    wrong += [
        f"{name} is {tuple(value.shape)} there and {tuple(state[name].shape)} here"
        for name, value in there.items()
        if name in state and value.shape != state[name].shape
    ]
    if not wrong:
        return None
    return "; ".join(sorted(wrong)[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")


def _classes(settings: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401 - nested plain values
    """Each class that is named, with its arguments."""
    if isinstance(settings, Mapping):
        if "class_path" in settings:
            arguments = settings.get("init_args") or {}
            yield str(settings["class_path"]), arguments
            for given in arguments.get("exclude_images_of") or ():  # CLASS=FOLDER
                yield _data_class(str(given).partition("=")[0]), {}
            for source in arguments.get("sources") or ():
                yield from _classes({"class_path": _data_class(source["data"]), "init_args": source})
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            yield from _classes(value)


def _data_class(name: str) -> str:
    """A data set's class as it is named where the project's own do without their module."""
    return name if "." in name else f"datamodules.{name}"


def differences(old: object, new: object, at: str = "") -> list[str]:
    """Where `new` departs from `old`, as lines "key: new (checkpoint: old)"; keys that only `new` has are skipped."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key, value in old.items()
            if key in new
            for line in differences(value, new[key], f"{at}.{key}" if at else str(key))
        ]
    return [] if old == new else [f"{at}: {new} (checkpoint: {old})"]
