"""The READMEs as data: their texts, fenced blocks, commands and quoted words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ROOMS = ("umd", "callbacks", "datamodules", "configs", "tests")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for place in (ROOT, *(ROOT / room for room in (*ROOMS, ".github")))
    for path in sorted(place.glob("*.md") if place == ROOT else place.rglob("*.md"))
}
# A past name may be of something that is gone.
LIVING = {name: text for name, text in TEXTS.items() if not name.endswith("CHANGELOG.md")}

FENCE = re.compile(r"^```(?P<head>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(?P<words>[^`\n]+)`")


class Block(NamedTuple):
    """A fenced block: its language, the file that it is the content of ("" for none), and its lines."""

    readme: str
    language: str
    file: str
    body: str


def blocks() -> Iterator[Block]:
    for name, text in LIVING.items():
        for found in FENCE.finditer(text):
            language, _, file = found["head"].strip().partition(" ")
            yield Block(name, language, file, found["body"])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of a block without a language: the README, and its words (settings of the environment left out)."""
    for block in blocks():
        if block.language:
            continue
        for line in block.body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z]+=", words[0]):
                words = words[1:]
            if words:
                yield block.readme, [words[0].removeprefix(".venv/bin/"), *words[1:]]


def spans(text: str) -> Iterator[str]:
    yield from (found["words"] for found in SPAN.finditer(FENCE.sub("", text)))
