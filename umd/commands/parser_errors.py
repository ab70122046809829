"""What is wrong with a command line or a config, in one line."""

from __future__ import annotations

import re
import sys
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from umd.run.renamed import option_of_today, public_class_path

_OF_A_CLASS = re.compile(
    r"Problem with given class_path '(?P<name>[^']+)':\s*(?P<problem>.*?)(?=\n\s*- |\n\s*Given |\Z)", re.DOTALL
)
_UNKNOWN_OPTION = re.compile(r"Option '(?P<argument>[^']+)' is not accepted")
_UNKNOWN_PLACE = re.compile(r"has no attribute|No module named")
_OF_A_KEY = re.compile(r'Parser key "(?P<name>[^"]+)":\s*')


def in_one_line(message: str) -> str:
    """The innermost problem that the parser found, with the class or key that it is about.

    The parser tells of every type that a value might have had; of these, only what a chosen class objects to is of
    use.
    """
    found = list(_OF_A_CLASS.finditer(message))
    if found:
        name = found[-1]["name"].rsplit(".", 1)[-1]
        problem = _OF_A_KEY.sub(lambda key: f"{key['name']}: ", found[-1]["problem"])
        problem = problem.replace("the following arguments are required:", "there is no value for")
        problem = problem.replace("unrecognized arguments:", "there is no option")
        message = f"{name}: {_as_it_is_called_now(found[-1]['name'], problem)}"
    return " ".join(message.replace("Expected a typing.Literal", "expected one of ").split())


def _as_it_is_called_now(class_path: str, problem: str) -> str:
    """The problem, or where a class or an argument only has another name by now, that name."""
    unknown = _UNKNOWN_OPTION.search(problem)
    if unknown and (option := option_of_today(class_path, unknown["argument"])):
        return f"{unknown['argument']} is called {option} now"
    if _UNKNOWN_PLACE.search(problem) and (today := public_class_path(class_path)) != class_path:
        return f"{class_path} is called {today} now"
    return problem


class OneLineParser(LightningArgumentParser):
    """Lightning's parser; what it objects to is one line, and where to look for help another."""

    command: str = "fit"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say it, and exit with code 2; a parser inside another one raises it."""
        if not self.exit_on_error:
            super().error(message, ex)
        part = "data" if self.command == "data" else "model"
        umd = f"umd {self.command}"
        sys.stderr.write(f"umd: {in_one_line(message)}\nOptions: {umd} --help, {umd} --{part}.help CLASS\n")
        raise SystemExit(2) from ex


def parser_for(command: str) -> type[OneLineParser]:
    """The parser of `umd <command>`."""
    return type("Parser", (OneLineParser,), {"command": command})
