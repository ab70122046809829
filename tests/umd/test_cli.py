"""What a user sees of an error: a line where it is theirs to mend, a traceback where it is ours."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from umd import cli
from umd.commands import compare
from umd.files import UserError, write_whole, writing


def command_that(fails: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def main(arguments: list[str]) -> None:
        fails()

    monkeypatch.setattr(compare, "main", main)
    cli.main(["compare"])


def test_an_error_that_was_raised_for_the_user_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        try:
            raise UserError("there is no run 'x'")
        except UserError as error:
            raise RuntimeError("while a library was at work") from error

    with pytest.raises(SystemExit) as stop:
        command_that(fails, monkeypatch)
    assert stop.value.code == 2 and capsys.readouterr().err == "umd: there is no run 'x'\n"


@pytest.mark.parametrize("mistake", [ValueError, TypeError, OSError, ImportError, KeyError])
def test_a_mistake_of_ones_own_keeps_its_traceback(mistake: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised in a file of ours, and nobody meant it for the user."""

    def fails() -> None:
        raise mistake("a slip")

    with pytest.raises(mistake, match="a slip"):
        command_that(fails, monkeypatch)


def test_what_the_machine_refuses_is_said_of_the_file_that_was_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write '.*file.*': Not a directory"):
        write_whole(tmp_path / "file" / "below", "text")
    with pytest.raises(OSError, match="elsewhere"), writing(tmp_path):
        raise OSError(errno.EACCES, "Permission denied", "/elsewhere")  # of a file that was only read
