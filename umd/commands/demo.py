"""`umd demo`: all three stages and two controls on phantom data, side by side where they do not wait for each other."""

from __future__ import annotations

import os
import selectors
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from shutil import which

from umd.commands.tool_parser import ToolParser
from umd.files import UserError, writing

QUESTION = "Where is the lesion?"
THREADS = 1
"""Of each training: with tiny layers a second one waits more than it works, and spins while it does."""

_TITLES = (
    "1 of 3: pre-training on drawn images with captions",
    "2 of 3: calibration on the questions' images and texts, without their answers",
    "3 of 3: fine-tuning on the questions (joint), and, as controls, without the image and without the question",
)

_SHOWN = ("epoch ", "WARNING", "umd: ")


@dataclass(frozen=True)
class Training:
    """One call of `umd fit`."""

    name: str
    arguments: tuple[str, ...]


def trainings(folder: Path) -> list[list[Training]]:
    """What is trained into `folder`: one group after the other, those of a group side by side."""
    phantom = ("--data.root", str(folder / "phantom"))
    pretrained, calibrated = (
        str(folder / f"{stage}/default/checkpoints/last.ckpt") for stage in ("pretrain", "calibrate")
    )
    tune = (*_fit(folder, "vqa"), *phantom, "--model.init_from", calibrated, "--name")
    return [
        [Training("pretrain", _fit(folder, "pretrain"))],
        [Training("calibrate", (*_fit(folder, "calibrate"), *phantom, "--model.init_from", pretrained))],
        [
            Training("joint", (*tune, "joint")),
            Training("text_only", (*tune, "text_only", "--config", "ablation/text_only.yaml")),
            Training("image_only", (*tune, "image_only", "--config", "ablation/image_only.yaml")),
        ],
    ]


def _fit(folder: Path, stage: str) -> tuple[str, ...]:
    where = ("--runs", str(folder), "--data.cache", str(folder / "cache"))
    return ("fit", "--config", f"{stage}.yaml", "--config", f"demo/{stage}.yaml", *where)


def main(arguments: list[str]) -> None:
    """Train, compare, and ask the model a question.

    Raises:
        UserError: the folder is not empty, or cannot be written.
    """
    parser = ToolParser(
        prog="umd demo",
        description="Train all three stages on phantom data, and the same fine-tuning without the image and without "
        "the question; show their table, and ask the model a question.",
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"), help="where to (runs/demo); must be empty")
    folder: Path = parser.parse_args(arguments).folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--folder: '{folder}' holds something already; give another one, or remove it")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _import_once()
    for title, group in zip(_TITLES, trainings(folder), strict=True):
        sys.stdout.write(f"{title}\n")
        sys.stdout.flush()
        train_together(group, folder)
    _show(folder)


def _import_once() -> None:
    """Import what every training needs, so that those that are forked off have it: seconds each."""
    import torchmetrics  # noqa: F401
    import transformers  # noqa: F401

    import callbacks  # noqa: F401
    import datamodules.phantom  # noqa: F401
    import umd.commands.calibration
    import umd.commands.train  # noqa: F401


def train_together(group: Sequence[Training], folder: Path) -> None:
    """Train a group at the same time, each in a process of its own; what they say goes to `folder`/NAME.log.

    Raises:
        UserError: one failed; the last lines of its log.
    """
    # Forked, a training starts at once; elsewhere a new process imports everything again.
    context = get_context("fork") if sys.platform == "linux" else get_context("spawn")
    began = time.monotonic()
    running: dict[str, BaseProcess] = {}
    with selectors.DefaultSelector() as selector:
        for training in group:
            mine, theirs = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(target=_train, args=(training.arguments, theirs), name=training.name)
            process.start()
            theirs.close()
            running[training.name] = process
            selector.register(mine, selectors.EVENT_READ, training.name)
        _relay(selector, folder)
    for name, process in running.items():
        process.join()
        if process.exitcode:
            last = (folder / f"{name}.log").read_text(encoding="utf-8").splitlines()[-20:]
            raise UserError("\n".join([f"the training '{name}' failed; {folder / name}.log ends with", *last]))
    sys.stdout.write(f"{', '.join(running)}: {time.monotonic() - began:.0f} s\n")


def _relay(selector: selectors.BaseSelector, folder: Path) -> None:
    """Write what comes through the pipes into logs until all are closed, and show the lines that tell of progress."""
    logs = {key.data: (folder / f"{key.data}.log").open("wb") for key in selector.get_map().values()}
    begun: dict[str, bytes] = dict.fromkeys(logs, b"")
    try:
        while selector.get_map():
            for key, _ in selector.select():
                said = os.read(key.fd, 1 << 16)
                if not said:
                    selector.unregister(key.fileobj)
                    continue
                logs[key.data].write(said)
                *lines, begun[key.data] = (begun[key.data] + said).split(b"\n")
                for line in (line.decode(errors="replace") for line in lines):
                    if line.startswith(_SHOWN):
                        sys.stdout.write(f"{key.data}: {line}\n")
                sys.stdout.flush()
    finally:
        for log in logs.values():
            log.close()


def _train(arguments: Sequence[str], output: Connection) -> None:
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    # What was there before may not write to these two, and what waits in it is the parent's.
    sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", 1, encoding="utf-8") for stream in (1, 2))
    import torch

    from umd.cli import main as command_line

    torch.set_num_threads(THREADS)
    command_line(list(arguments))


def question(folder: Path) -> list[str]:
    """What is asked last, as typed behind `umd answer`."""
    image = folder / "phantom/images/phantomtest00000.jpg"
    asked = ("--image", str(image), "--question", QUESTION, "--show", str(folder / "answer.png"))
    return ["--ckpt_path", str(folder / "vqa/joint"), *asked]


def _show(folder: Path) -> None:
    from umd.commands import answer, compare

    compare.main([str(folder / "vqa" / name) for name in ("joint", "text_only", "image_only")])
    answer.main(question(folder))
    model, phantom = folder / "vqa/joint", folder / "phantom"
    umd = "umd" if which("umd") else sys.argv[0]  # after `make demo` the environment need not be activated
    sys.stdout.write(f"to ask it in a browser: {umd} serve --ckpt_path {model} --data vqa.yaml --root {phantom}\n")
