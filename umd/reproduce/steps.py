"""A step: one command of `umd`, what it starts from, and a fingerprint of all that its result depends on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from umd.reproduce.code import Code

Command = Literal["fit", "test", "predict", "data"]

_ENTRIES: dict[Command, str] = {
    "fit": "umd.commands.train",
    "test": "umd.commands.train",
    "predict": "umd.commands.train",
    "data": "umd.commands.data",
}
"""The module that each command starts in."""


@dataclass(frozen=True)
class Step:
    """One command, as pure data.

    Attributes:
        command: the subcommand of `umd`.
        stage: the stage's folder below the runs ("pretrain", "vqa", ...); "data" for `umd data`.
        label: what the step is, in a few words; it depends on nothing but the step's own content.
        configs: names of config files below configs/, in their order.
        options: further words of the command line.
        source: the training whose checkpoint this step starts from ("fit") or evaluates ("test", "predict").
        data: the step that looks at this training's data, and fails where that has no test split; no part of the
            fingerprint, since nothing is taken from it.
    """

    command: Command
    stage: str
    label: str
    configs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    source: Step | None = None
    data: Step | None = None

    def __str__(self) -> str:
        return f"{self.stage}/{self.label}"


class Workspace:
    """Where steps live: the configs that they read, the code that they run, and the folder of their results.

    A step's folder is named by its fingerprint. So nothing is ever overwritten: what differs in a setting, in the
    text of a config, in the code that it runs, or in what it starts from, is another step with a folder of its own.

    Args:
        configs: the folder configs/, as it is to stand in commands.
        out: folder of the results; runs go to `<out>/runs`.
        code: the project's files, of which a step's own are part of its fingerprint.
    """

    def __init__(self, configs: Path, out: Path, code: Code) -> None:
        self.configs = configs
        self.out = out
        self.code = code
        self._fingerprints: dict[Step, str] = {}
        self._config_texts: dict[str, str] = {}

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.out / "runs"

    def fingerprint(self, step: Step) -> str:
        """Hexadecimal digest of the step's content, its configs' texts, its code, and all that it starts from."""
        if step not in self._fingerprints:
            texts = [self._text(name) for name in step.configs]
            source = self.fingerprint(step.source) if step.source else ""
            parts = [step.command, step.stage, *step.options, *texts, self.code_of(step), source]
            self._fingerprints[step] = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return self._fingerprints[step]

    def files(self, step: Step) -> set[Path]:
        """The source files that the step runs.

        What a test's checkpoint asks for was run by the training that it comes from, and counts there.
        """
        words = {word for name in step.configs for word in _texts(yaml.safe_load(self._text(name)))}
        words |= {part for word in step.options for part in (word, *re.findall(r"[\w./]+", word))}
        return self.code.files(_ENTRIES[step.command], words)

    def code_of(self, step: Step) -> str:
        """Hexadecimal digest of these files."""
        return self.code.digest(self.files(step))

    def _text(self, name: str) -> str:
        if name not in self._config_texts:
            self._config_texts[name] = (self.configs / name).read_text(encoding="utf-8")
        return self._config_texts[name]

    def name(self, step: Step) -> str:
        """The step's run name: its label and the beginning of its fingerprint."""
        return f"{step.label}-{self.fingerprint(step)[:8]}"

    def full_name(self, step: Step) -> str:
        """The same behind the stage: unlike any other step's."""
        return f"{step.stage}/{self.name(step)}"

    def folder(self, step: Step) -> Path:
        """Where the step's results lie."""
        base = self.runs / step.stage / self.name(step)
        return base if step.command in ("fit", "data") else base / step.command

    def checkpoint(self, step: Step) -> Path:
        """What a later stage starts from: a training's last state; a test wants `best_checkpoint`."""
        return self.folder(step) / "checkpoints" / "last.ckpt"

    def best_checkpoint(self, step: Step) -> Path:
        """The checkpoint that validation chose."""
        return self.folder(step) / "checkpoints" / "best.ckpt"

    def words(self, step: Step) -> list[str]:
        """The command line, beginning with "umd"; it can be run by hand."""
        words = ["umd", step.command]
        words += [word for name in step.configs for word in ("--config", str(self.configs / name))]
        words += step.options
        if step.command == "data":
            return [*words, "--out", str(self.folder(step))]
        if step.source is not None:
            if step.command == "fit":
                words += ["--model.init_from", str(self.checkpoint(step.source))]
            else:
                words += ["--ckpt_path", str(self.best_checkpoint(step.source))]
        return [*words, "--runs", str(self.runs), "--name", self.name(step)]

    def next_words(self, step: Step) -> list[str]:
        """The command line that is due now: the step's own, or one that goes on with an interrupted training."""
        if step.command == "fit" and self.checkpoint(step).is_file():
            return ["umd", "fit", "--ckpt_path", str(self.checkpoint(step))]
        return self.words(step)

    def done_file(self, step: Step) -> Path:
        """What `umd reproduce` writes once a step has ended well; a command that is run by hand writes none."""
        return self.folder(step) / "done.json"

    def done(self, step: Step) -> bool:
        """Whether the step's result is complete, and made with its own settings."""
        return self.done_file(step).is_file() and self.has_result(step)

    def has_result(self, step: Step) -> bool:
        """Whether the command left what is wanted of it."""
        if step.command == "fit":
            return True  # its checkpoints may be deleted once nothing starts from them
        left = {"data": "summary.json", "test": "results.json", "predict": "features.npz"}
        return (self.folder(step) / left[step.command]).is_file()

    def log(self, step: Step) -> Path:
        """Where the output of a step goes."""
        return self.out / "logs" / f"{self.full_name(step)}.log"


def _texts(content: Any) -> Iterator[str]:  # noqa: ANN401 - nested plain values
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _texts(value)
    elif isinstance(content, str):
        yield content


def in_order(steps: Iterable[Step]) -> Iterator[Step]:
    """Each step once, behind all that it needs."""
    seen: set[Step] = set()
    for step in steps:
        for needed in _chain(step):
            if needed not in seen:
                seen.add(needed)
                yield needed


def chains(steps: Iterable[Step]) -> list[list[Step]]:
    """For each step that no other one needs, all that it takes, in order, and the step itself."""
    every = list(in_order(steps))
    needed = {other for step in every for other in (step.data, step.source)}
    return [_chain(step) for step in every if step not in needed]


def _chain(step: Step) -> list[Step]:
    # What the data holds comes first: nothing is trained for a test that cannot be made.
    before = [needed for needed in (step.data, step.source) if needed is not None]
    return [*(one for needed in before for one in _chain(needed)), step]
