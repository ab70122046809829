"""What is wrong with a command line or a config, in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

from umd.run.renamed import OPTIONS, option_of_today, public_class_path

_OF_A_CLASS = re.compile(
    r"Problem with given class_path '(?P<name>[^']+)':\s*(?P<problem>.*?)(?=\n\s*- |\n\s*Given |\Z)", re.DOTALL
)
_UNKNOWN_OPTION = re.compile(r"Option '(?P<argument>[^']+)' is not accepted")
_NO_OPTION = re.compile(r"Option '(?P<of_a_class>[^']+)' is not accepted|unrecognized arguments: --(?P<typed>[\w.]+)")
_REQUIRED = re.compile(r"the following arguments are required: (?P<names>[\w., ]+)")
_UNKNOWN_PLACE = re.compile(r"has no attribute|No module named")
_OF_A_KEY = re.compile(r'Parser key "(?P<name>[^"]+)":\s*')
_OF_SEVERAL_TYPES = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: .*? Errors: - (?P<errors>.*) "
    r"Given value type: .*? Given value: (?P<value>.*)"
)
_EXPECTED = re.compile(r"(?:Expected (?:an? )?<class '(?P<type>\w+)'>|expected one of \[(?P<values>[^\]]*)\])")


def in_one_line(message: str) -> str:
    """The innermost problem that the parser found, with the class or key that it is about.

    The parser tells of every type that a value might have had; of these, only what a chosen class objects to is of
    use.
    """
    found = list(_OF_A_CLASS.finditer(message))
    if found:
        name = found[-1]["name"].rsplit(".", 1)[-1]
        problem = _OF_A_KEY.sub(lambda key: f"{key['name']}: ", found[-1]["problem"])
        problem = _REQUIRED.sub(lambda missing: _without_value(found[-1]["name"], missing["names"]), problem)
        problem = problem.replace("unrecognized arguments:", "there is no option")
        message = f"{name}: {_as_it_is_called_now(found[-1]['name'], problem)}"
    line = " ".join(message.replace("Expected a typing.Literal", "expected one of ").split())
    return _OF_A_KEY.sub(lambda key: f"--{key['name']}: ", _expectations(line))


def _without_value(class_path: str, names: str) -> str:
    part = OPTIONS.get(public_class_path(class_path).partition(".")[0])
    named = names.split(", ") if part is None else [f"--{part}.{name}" for name in names.split(", ")]
    return f"there is no value for {', '.join(named)}"


def _expectations(line: str) -> str:
    """The line with all types that a value may have in a row, as a user would write them."""
    union = _OF_SEVERAL_TYPES.search(line)
    errors = union["errors"].split(" - ") if union else []
    if union and all(_EXPECTED.fullmatch(error) for error in errors):
        line = f"{line[: union.start()]}{' or '.join(errors)}. Got value: {union['value']}"
    return _EXPECTED.sub(_expectation, line).replace(" or expected ", " or ")


def _expectation(found: re.Match[str]) -> str:
    if found["type"]:
        return f"expected {'null' if found['type'] == 'NoneType' else found['type']}"
    return f"expected one of {found['values']}"


def _as_it_is_called_now(class_path: str, problem: str) -> str:
    """The problem, or where a class or an argument only has another name by now, that name."""
    unknown = _UNKNOWN_OPTION.search(problem)
    if unknown and (option := option_of_today(class_path, unknown["argument"])):
        return f"{unknown['argument']} is called {option} now"
    if _UNKNOWN_PLACE.search(problem) and (today := public_class_path(class_path)) != class_path:
        return f"{class_path} is called {today} now"
    return problem


def nearest_option(message: str, known: Iterable[str]) -> str | None:
    """What was probably meant by an option that there is not, or None.

    Args:
        message: the parser's.
        known: the options that do not depend on a class, without their dashes.
    """
    unknown = _NO_OPTION.search(message)
    if unknown is None:
        return None
    typed = unknown["of_a_class"] or unknown["typed"]
    found = list(_OF_A_CLASS.finditer(message))
    if found:
        face, _, name = public_class_path(found[-1]["name"]).partition(".")
        if face not in OPTIONS:
            return None
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(getattr(import_module(face), name), fail_untyped=False)
        part, known = f"{OPTIONS[face]}.", _options(parser)
    else:
        part = ""
        known = {*known, *(f"{option}.{typed.partition('.')[2]}" for option in OPTIONS.values())}
    near = get_close_matches(typed, known, n=1, cutoff=0.8)
    return f"--{part}{near[0]}" if near else None


def _options(parser: ArgumentParser) -> set[str]:
    return {option.removeprefix("--") for action in parser._actions for option in action.option_strings}


class OneLineParser(LightningArgumentParser):
    """Lightning's parser; what it objects to is one line, and where to look for help another."""

    command: str = "fit"

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as its parent's
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False  # as of options of a class: an unfinished name is a slip, too

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say it, and exit with code 2; a parser inside another one raises it."""
        if not self.exit_on_error:
            super().error(message, ex)
        near = nearest_option(message, _options(self))
        meant = f"; did you mean {near}?" if near else ""
        of_data = self.command == "data" or "datamodules." in message
        umd = f"umd {self.command}"
        sys.stderr.write(
            f"umd: {in_one_line(message)}{meant}\n"
            f"Options: {umd} --help, {umd} --{'data' if of_data else 'model'}.help CLASS\n"
        )
        raise SystemExit(2) from ex


def parser_for(command: str) -> type[OneLineParser]:
    """The parser of `umd <command>`."""
    return type("Parser", (OneLineParser,), {"command": command})
