"""The command line, and the only file that knows all packages.

`umd fit|validate|test|predict` are LightningCLI's; the project's own commands are dispatched before it, so that
they start without importing torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version

from umd import NOTICE
from umd.commands.tool_parser import did_you_mean
from umd.files import UserError

_OWN_COMMANDS: dict[str, tuple[str, str]] = {
    "answer": ("umd.commands.answer", "ask a trained model about an image"),
    "serve": ("umd.commands.serve", "open a page on this machine to ask it there"),
    "score": ("umd.commands.score", "grade anybody's answers to a data set's questions"),
    "export": ("umd.commands.export", "write a trained model into a folder to take along, also as ONNX"),
    "compare": ("umd.commands.compare", "put the test results of several runs into one table"),
    "demo": ("umd.commands.demo", "all stages on phantom data, in a few minutes"),
    "reproduce": ("umd.reproduce", "make a table or figure of the papers, all stages of it"),
    "convert": ("umd.released.convert", "turn a released UMD or M3AE checkpoint into one of this project"),
    "data": ("umd.commands.data", "show what a data set holds, before anything is trained"),
}

_LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")

_HELP = """usage: umd COMMAND ...

Medical vision-language training: pre-train, calibrate, fine-tune.

training and evaluation
  fit        train a stage                umd fit --config configs/pretrain.yaml
  validate   evaluate on validation data  umd validate --ckpt_path runs/vqa/default
  test       evaluate on test data        umd test --ckpt_path runs/vqa/default
  predict    write answers to a CSV file  umd predict --ckpt_path runs/vqa/default

tools
{tools}

umd COMMAND --help tells more; umd --version prints the version.
A checkpoint knows its model, data, tokenizer and answers: --ckpt_path needs no --config. What is typed wins.
{notice}
"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a mistake in what the user gave ends with one clear line and exit code 2."""
    try:
        _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("umd: interrupted\n")
        raise SystemExit(130) from None


def _run(given: list[str]) -> None:
    command = given[0] if given else "--help"
    if command in ("-h", "--help"):
        tools = "\n".join(f"  {name:<10} {text}" for name, (_, text) in _OWN_COMMANDS.items())
        sys.stdout.write(_HELP.format(tools=tools, notice=NOTICE))
    elif command == "--version":
        sys.stdout.write(f"umd {version('umd')}\n")
    elif command == "data":
        _in_the_users_words(_data, given[1:])
    elif command in _OWN_COMMANDS:
        _in_the_users_words(import_module(_OWN_COMMANDS[command][0]).main, given[1:])
    elif command in _LIGHTNING_COMMANDS:
        _in_the_users_words(_lightnings, given)
    else:
        known = [*_LIGHTNING_COMMANDS, *_OWN_COMMANDS]
        near = did_you_mean(command, known)
        sys.stderr.write(f"umd: there is no command '{command}'; there are {', '.join(known)}{near}\n")
        raise SystemExit(2)


def _lightnings(given: list[str]) -> None:
    from umd.commands.early import check_early
    from umd.commands.imports import importing

    check_early(given[0], given[1:])
    with importing():
        from umd.commands.train import run  # imports torch and lightning, which takes seconds

    run(given)


def _data(given: list[str]) -> None:
    from umd.commands.early import check_data_early
    from umd.commands.imports import importing

    check_data_early(given)
    with importing():
        from umd.commands.data import main  # imports both as well

    main(given)


def _in_the_users_words(function: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Show a `UserError`, or one behind the error that was raised, as its message alone; others keep the traceback."""
    try:
        function(arguments)
    except Exception as error:
        clear: BaseException | None = error
        while clear is not None and not isinstance(clear, UserError):
            clear = clear.__cause__
        if clear is None:
            raise
        sys.stderr.write(f"umd: {clear}\n")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
