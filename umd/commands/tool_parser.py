"""The parser of the commands that are not LightningCLI's: what was mistyped is one line, as everywhere else."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import NoReturn

from umd.files import UserError

_OF_AN_ARGUMENT = re.compile(r"argument (?P<name>.+?): (?P<problem>.*)", re.DOTALL)
_NO_CHOICE = re.compile(r"invalid choice: (?P<value>.*) \(choose from .*\)", re.DOTALL)
_NO_SUCH_VALUE = re.compile(r"invalid (?P<type>\w+) value: (?P<value>.*)", re.DOTALL)
_TYPES = {"int": "whole number", "float": "number"}


class ToolParser(argparse.ArgumentParser):
    """argparse's, which would write a usage of many lines before the one that says what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as a UserError; a wording of its that is not known here is kept."""
        raise UserError(" ".join(self._in_the_users_words(message).split()))

    def _in_the_users_words(self, message: str) -> str:
        what, _, rest = message.partition(": ")
        if what == "the following arguments are required":
            return f"{self.prog} needs {'; '.join(self._described(name) for name in rest.split(', '))}"
        if what == "unrecognized arguments":
            return f"{self.prog} {self._unknown(rest.split())}"
        if what == "ambiguous option":
            return rest.replace(" could match ", " could be ")
        of_one = _OF_AN_ARGUMENT.fullmatch(message)
        return f"{self.prog}: {message}" if of_one is None else self._of_an_argument(of_one["name"], of_one["problem"])

    def _of_an_argument(self, name: str, problem: str) -> str:
        action = self._action(name)
        choices = list(map(str, action.choices or ()))
        shown = name if action.option_strings else self.prog
        if wrong := _NO_CHOICE.fullmatch(problem):
            near = did_you_mean(wrong["value"].strip("'\""), choices)
            return f"{shown}: {wrong['value']} is none of {', '.join(choices)}{near}"
        if wrong := _NO_SUCH_VALUE.fullmatch(problem):
            return f"{shown}: {wrong['value']} is no {_TYPES.get(wrong['type'], wrong['type'])}"
        if problem.startswith("expected "):
            return f"{shown}: there is no value for it" + (f", of {', '.join(choices)}" if choices else "")
        if problem.startswith("not allowed with argument "):
            return f"{shown} does not go with {problem.removeprefix('not allowed with argument ')}"
        if problem.startswith("ignored explicit argument "):
            return f"{shown} takes no value, so not {problem.removeprefix('ignored explicit argument ')}"
        return f"{shown}: {problem}"

    def _described(self, name: str) -> str:
        """What is required, and what it is."""
        action = self._action(name)
        of = f"one of {', '.join(map(str, action.choices))}" if action.choices else action.help
        value = f" {action.metavar}" if action.option_strings and action.metavar else ""
        return f"{name}{value}: {of}"

    def _unknown(self, typed: list[str]) -> str:
        """Of what argparse did not recognise, the first option; without one, the first word."""
        option = next((word for word in typed if word.startswith("-")), None)
        if option is None:
            return f"takes no '{typed[0]}'"
        option = option.partition("=")[0]
        return f"has no option {option}{did_you_mean(option, self._option_string_actions)}"

    def _action(self, name: str) -> argparse.Action:
        """The argument that argparse calls so in its messages."""
        return next(one for one in self._actions if name in ("/".join(one.option_strings), one.metavar, one.dest))


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the nearest of what there is; empty where none is near, or several alike."""
    near = get_close_matches(typed, known, n=2)
    alike = len({SequenceMatcher(None, one, typed).ratio() for one in near}) < len(near)
    return f"; did you mean {near[0]}?" if near and not alike else ""
