"""`--callback NAME=off` and `--callback NAME.ARGUMENT=VALUE`: one callback of a config, without repeating the list."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import yaml

from umd.files import UserError


def with_options(callbacks: Sequence[Any], options: Sequence[str]) -> list[Any]:
    """The callbacks of a config after these options, in their order.

    Args:
        callbacks: settings with `class_path` and, where there are arguments, `init_args`.
        options: "NAME=off" leaves all callbacks of that name out, "NAME.ARGUMENT=VALUE" sets one argument of the
            only one (as YAML reads the value). NAME is the class's own name.

    Raises:
        UserError: an option is worded otherwise; or the config has no callback of this name; or an argument is set
            of one of several.
    """
    kept = list(callbacks)
    for option in options:
        key, equals, value = option.partition("=")
        name, _, argument = key.partition(".")
        if not equals or not name or not (argument or value == "off"):
            raise UserError(f"--callback {option}: NAME=off or NAME.ARGUMENT=VALUE is needed")
        found = [callback for callback in kept if _name(callback) == name]
        if not found:
            names = list(dict.fromkeys(_name(callback) for callback in kept))
            near = get_close_matches(name, names, n=1)
            raise UserError(
                f"--callback {option}: the config has no callback '{name}', but {', '.join(names) or 'none'}"
                + (f"; did you mean {near[0]}?" if near else "")
            )
        if argument and len(found) > 1:
            raise UserError(
                f"--callback {option}: the config has {len(found)} callbacks '{name}', and nothing says which one: "
                f"give a --config with trainer.callbacks in the place of all, or leave them out with {name}=off"
            )
        if argument:
            arguments = found[0].get("init_args")
            if arguments is None or argument not in arguments:
                raise UserError(
                    f"--callback {option}: {name} has no argument '{argument}', but "
                    f"{', '.join(vars(arguments)) if arguments is not None else 'none'}"
                )
            arguments[argument] = yaml.safe_load(value)
        else:
            kept = [callback for callback in kept if _name(callback) != name]
    return kept


def _name(callback: Any) -> str:  # noqa: ANN401 - the parser's own settings
    return str(callback["class_path"]).rsplit(".", 1)[-1]
