"""What can be said of a command line at once, before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umd.commands.configs import settings_in, typed_configs, with_found_configs
from umd.files import UserError
from umd.run.paths import find_checkpoint

LIGHTNINGS_OWN_NAMES = ("best", "last", "hpc", "registry")
"""What may stand in the place of a checkpoint's path: Lightning finds these itself."""

_SAY_WHICH_MODEL = {"--ckpt_path", "--model", "--model.class_path"}  # beside a config with a part 'model'
_SAY_WHICH_DATA = {"--config", "-c", "--data", "--data.class_path"}
_ASK = {"--help", "-h", "--model.help", "--data.help", "--print_config"}


def check_early(command: str, options: Sequence[str]) -> None:
    """Refuse what cannot work, so that a slip of the hand costs no wait.

    Args:
        command: "fit", "validate", "test" or "predict".
        options: what is typed after it.

    Raises:
        UserError: nothing says which model; or a file that is named is not there, or is no YAML.
    """
    settings = [settings_in(config) for config in typed_configs(with_found_configs(options))]
    typed = {option.partition("=")[0] for option in options}
    if not (_SAY_WHICH_MODEL | _ASK).intersection(typed) and not any(map(_has_model, settings)):
        raise without_checkpoint(command)
    checkpoint = value_of("--ckpt_path", options)
    if checkpoint is not None and checkpoint not in LIGHTNINGS_OWN_NAMES:
        found = find_checkpoint(Path(checkpoint)) if command != "fit" else Path(checkpoint)
        if not found.is_file():
            raise without_file(checkpoint)
    for name in ("--model.init_from", "--model.init_args.init_from"):
        start = value_of(name, options)
        if start not in (None, "null") and not Path(start).is_file():
            raise UserError(f"{name}: there is no file '{start}'")


def check_data_early(options: Sequence[str]) -> None:
    """Refuse what cannot be a data set, as `check_early` does.

    Args:
        options: what is typed after `umd data`, or what `questions.data_arguments` makes of another command.

    Raises:
        UserError: nothing says which data set; or a config is not there, or is no YAML.
    """
    if not (_SAY_WHICH_DATA | _ASK).intersection(option.partition("=")[0] for option in options):
        raise UserError("which data set? Give a --config with a part 'data', or --data CLASS, such as PhantomVQA")
    for config in typed_configs(with_found_configs(options)):
        settings_in(config)


def _has_model(settings: object) -> bool:
    return isinstance(settings, dict) and settings.get("model") is not None


def without_file(checkpoint: str) -> UserError:
    """The error for a checkpoint that is no file; where it is a run's folder, it names what could be gone on from."""
    held = sorted((Path(checkpoint) / "checkpoints").glob("*.ckpt"))
    if held:
        return UserError(f"'{checkpoint}' is a run's folder; its checkpoints are {', '.join(map(str, held))}")
    return UserError(f"there is no checkpoint '{checkpoint}'")


def without_checkpoint(command: str) -> UserError:
    """The error for a command that needs to be told which model, and was not."""
    if command == "fit":
        return UserError(
            "umd fit needs a stage: umd fit --config configs/pretrain.yaml is the first, "
            "and the others lie beside it (these come with umd, from whichever folder you call)"
        )
    return UserError(f"umd {command} needs a trained model: --ckpt_path FILE")


def value_of(name: str, options: Sequence[str]) -> str | None:
    """The value of an option, typed as `--name value` or `--name=value`; None where it is not given."""
    for number, option in enumerate(options):
        if option == name and number + 1 < len(options):
            return options[number + 1]
        if option.startswith(name + "="):
            return option.split("=", 1)[1]
    return None
