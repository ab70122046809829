"""Which images of a data set can be used: each is looked for and decoded once, before anything is trained."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.image_files import ImageFinder
from datamodules.image_store import ImageStore
from datamodules.images import ImageError, ImageFile, is_inside

log = logging.getLogger(__name__)

MANY_IMAGES = 1000
"""From here on, checking the images may take long enough to show how far it is."""

SECONDS = 30.0
"""Between two lines of a log on how far it is."""


class ImageCheck:
    """Sorts the images of a data set into those that can be used and others.

    Args:
        title: The data set's name, in messages.
        store: Decodes the images, through its cache if it has one.
        locate: The file of an image name, or where it is stored in one.

    Attributes:
        files: Where the images are that can be used, by name.
        reasons: Why the others cannot.
    """

    def __init__(self, title: str, store: ImageStore, locate: Callable[[str], ImageFile]) -> None:
        self.title = title
        self.store = store
        self.locate = locate
        self.files: dict[str, ImageFile] = {}
        self.reasons: dict[str, str] = {}
        self._finder = ImageFinder()

    def __call__(self, names: Iterable[str], *, training: bool = False) -> None:
        """Checks those of these images that were not looked at yet.

        Args:
            names: The images.
            training: What a cache is filled for.
        """
        new = dict.fromkeys(name for name in names if name not in self.files and name not in self.reasons)
        outside = {name for name in new if not is_inside(name)}
        self.reasons |= dict.fromkeys(outside, "image path leads outside the data set")
        found = self.find(name for name in new if name not in outside)
        files = dict.fromkeys(found.values())  # several names may lead to one
        with progress(f"{self.title}: checking images", len(files)) as seen:
            bad = self.store.check(files, seen, training=training)
        self.reasons |= {name: f"image: {bad[file]}" for name, file in found.items() if file in bad}
        self.files |= {name: file for name, file in found.items() if file not in bad}

    def find(self, names: Iterable[str]) -> dict[str, ImageFile]:
        """The files of these images, but of those for which several files come into question."""
        files: dict[str, ImageFile] = {}
        others: list[str] = []
        for name in names:
            wanted = self.locate(name)
            if not isinstance(wanted, Path):
                files[name] = wanted
                continue
            try:
                files[name] = found = self._finder.find(wanted)
            except ImageError as error:
                self.reasons[name] = f"image: {error}"
                continue
            if found != wanted:
                others.append(f"{wanted.name} is {found.name}")
        if others:
            log.info("%s: %d image names have another ending than their files (%s)", self.title, len(others), others[0])
        return files


@contextmanager
def progress(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a long task is, on rank 0: a bar on a terminal, else a line of the log now and then.

    Args:
        task: What is done.
        total: How much there is to do; of little nothing is shown.

    Yields:
        What is told how much has been done since it was told last.
    """
    if total < MANY_IMAGES or getattr(rank_zero_only, "rank", 0) != 0:
        yield lambda done: None
        return
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            number = bar.add_task(task, total=total)
            yield lambda done: bar.advance(number, done)
    else:
        yield LogLines(task, total)


class LogLines:
    """Tells a log how far a task is, every `SECONDS` seconds."""

    def __init__(self, task: str, total: int) -> None:
        self.task = task
        self.total = total
        self.done = 0
        self.told = time.monotonic()

    def __call__(self, done: int) -> None:
        """So much more is done."""
        self.done += done
        if time.monotonic() - self.told >= SECONDS:
            self.told = time.monotonic()
            log.info("%s: %s of %s", self.task, f"{self.done:,}", f"{self.total:,}")
