"""The rows of a data set by their splits, and which of them can be used: no batch is made yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Generic

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.image_check import ImageCheck
from datamodules.image_store import ImageStore
from datamodules.images import ImageFile, is_inside
from datamodules.problems import Problems
from datamodules.records import RecordT, Split
from umd.files import UserError


class Splits(ABC, Generic[RecordT]):
    """Reads annotations once, and checks the images of a split when its rows are first asked for.

    Args:
        root: Folder of the data set.
        images: Reads its images.
    """

    title: str
    """The data set's name in messages and tables."""

    layout: str
    """What is looked for under `root`, for error messages."""

    root_option: str = "--data.root"
    """What says where `root` is, for error messages."""

    truths: ClassVar[str] = "answers"
    """What a test compares with, for messages and tables."""

    def __init__(self, root: Path, images: ImageStore) -> None:
        self.root = root
        self.images = images
        self._problems = Problems(self.title)
        self._published: dict[Split, list[RecordT]] | None = None
        self._usable: dict[Split, list[RecordT]] = {}
        self._looked_at: dict[Split, int] = {}
        self._looked_up: dict[Split, tuple[list[RecordT], int]] = {}
        self._check = ImageCheck(self.title, self.images, self.locate)
        self._testable: bool | None = None

    @abstractmethod
    def read(self, problems: Problems) -> dict[Split, list[RecordT]]:
        """Reads the annotations; a split that the files do not hold is left out.

        Args:
            problems: Takes rows that cannot be used.

        Raises:
            UserError: Not one split is there; `nothing_found` words it.
        """

    def locate(self, image: str) -> ImageFile:
        """The file of an image name, or where it is stored in one."""
        return self.root / image

    def most_rows(self, split: Split) -> int | None:
        """How many usable rows of a split to take, from its beginning; None: all."""
        return None

    def nothing_found(self) -> UserError:
        """The error for a root that holds nothing of this data set."""
        if self.root.is_file():
            held = f"that is a file, not a folder ({self.root_option} is the folder)"
        elif not self.root.is_dir():
            held = f"there is no such folder ({self.root_option} says where it is)"
        else:
            names = sorted(path.name for path in self.root.iterdir())
            held = f"it holds {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}"
        return UserError(f"{self.title}: looked in {self.root} for {self.layout}; {held}")

    def no_usable_row(self, split: Split, problems: Problems) -> UserError:
        """The error for a split of which nothing is left, or never was anything there."""
        why = str(problems) if problems.counts else f"{self.title}: its files hold none for it"
        return UserError(f"the {split} split has no usable row (root {self.root}). {why}")

    def has_truth(self, record: RecordT) -> bool:
        """Whether the data set says what is true of this row (an answer, a class), so that a test can count it."""
        return True

    def without_truth(self, split: Split) -> int:
        """The number of usable rows of a split whose truth is not given: they are answered, and do not count."""
        return sum(not self.has_truth(record) for record in self.records(split))

    def has_split(self, split: Split) -> bool:
        """Whether the data set (under the protocol in use) has this split."""
        return split in self._read()

    def published(self) -> dict[Split, list[RecordT]]:
        """All rows under the protocol in use, by split, whatever becomes of their images; warns of rows left out."""
        splits = self._read()
        self._problems.warn()
        return splits

    @property
    def has_test_split(self) -> bool:
        """Whether there is a test split to test on; one without answers and without images is none, in one warning."""
        if self._testable is None:
            self._testable = self.has_split("test")
            if self._testable and not any(map(self.has_truth, self._read()["test"])):
                try:
                    self.look_at("test")
                except UserError as error:  # nothing would be measured: no reason to stop a training
                    rank_zero_warn(f"there will be no test: {error}")
                    self._testable = False
        return self._testable

    def records(self, split: Split) -> list[RecordT]:
        """The usable rows of a split; checks its images when first asked.

        Raises:
            UserError: The data set has no such split; or not one of its rows can be used.
        """
        if split not in self._usable:
            self._usable[split], self._looked_at[split] = self.look_at(split)
        return self._usable[split]

    def look_at(self, split: Split) -> tuple[list[RecordT], int]:
        """The usable rows of a split, and how many rows were looked at, without counting the split among those used.

        So a training can know that it will end with a test, whatever it says of the data that it is trained on.

        Raises:
            UserError: As in `records`.
        """
        if split in self._looked_up:
            return self._looked_up[split]
        published = self._read()
        if split not in published:
            raise UserError(
                f"{self.title}: no {split} split in {self.root} (there: {', '.join(published) or 'none'}); "
                f"looked for {self.layout}"
            )
        rows, most = published[split], self.most_rows(split)
        usable: list[RecordT] = []
        looked_at = 0
        while looked_at < len(rows) and (most is None or len(usable) < most):
            wanted = rows[looked_at : None if most is None else looked_at + most - len(usable)]
            looked_at += len(wanted)
            self._check((record.image for record in wanted), training=split == "train")
            for record in wanted:
                if record.image in self._check.files:
                    usable.append(record)
                else:
                    self._problems.add(
                        f"{split} row left out: {self._check.reasons[record.image]}",
                        f"{record.sample_id} ({record.image})",
                    )
        if not usable:
            raise self.no_usable_row(split, self._problems)
        self._problems.warn()
        self._looked_up[split] = usable, looked_at
        return self._looked_up[split]

    def image_files(self, split: Split) -> dict[str, ImageFile]:
        """The file of each image that the rows of a split name, whether or not it can be read; none without the split.

        See `find_images`.
        """
        return self.find_images(record.image for record in self._read().get(split, ()))

    def find_images(self, names: Iterable[str]) -> dict[str, ImageFile]:
        """The files of these images, but of those whose name leads outside the data set, or to several files."""
        return self._check.find(name for name in dict.fromkeys(names) if is_inside(name))

    def left_out(self, split: Split) -> int:
        """The number of rows of a split that were left out because their image cannot be used."""
        usable = self.records(split)
        return self._looked_at[split] - len(usable)

    def _read(self) -> dict[Split, list[RecordT]]:
        if self._published is None:
            if not self.root.is_dir():
                raise self.nothing_found()
            self._published = self.read(self._problems)
        return self._published
