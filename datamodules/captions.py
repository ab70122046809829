"""Images with captions: the record, and what data sets of captions share: the images that they leave out."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from typing import get_args

from datamodules.arguments import LoaderArguments, Unpack
from datamodules.base import ImageTextDataModule
from datamodules.leaks import MISSING, can_hash, find_shared, images_of, other_data
from datamodules.problems import Problems
from datamodules.records import Split
from umd.files import UserError

log = logging.getLogger(__name__)

MEASURED_ON: tuple[Split, ...] = ("validation", "test")
"""The splits whose images must not be pre-trained on."""


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One image with its texts.

    Attributes:
        sample_id: The image's name, unique in its split.
        image: Path of the image, as the data module's `locate` takes it.
        text: The caption.
        alternative_texts: Further texts about the image, for training.
    """

    sample_id: str
    image: str
    text: str
    alternative_texts: tuple[str, ...] = ()


class CaptionArguments(LoaderArguments, total=False):
    """What every data set of captions takes, but `root`: see `CaptionDataModule`."""

    exclude_images_of: list[str] | None
    exclude_splits: list[Split] | None
    exclude_near_duplicates: bool
    text_length: int


class CaptionDataModule(ImageTextDataModule[CaptionRecord]):
    """Images with captions, to be pre-trained on. Subclasses add `title`, `layout` and `read_published`.

    Args:
        root: Folder of the data set, in its published layout.
        exclude_images_of: Data sets that the weights will be tested on, each as CLASS=FOLDER, such as
            "VQARAD=/data/vqa_rad": whatever of them is here is left out, unless both hold it out as the same split,
            and every table that follows says how much.
        exclude_splits: Which of their splits; None: validation and test, on which they are measured.
        exclude_near_duplicates: Leave out what looks nearly the same too (see `datamodules.leaks`), not only what is
            the same file or has the same published number. Needs the package imagehash.
        text_length: Most tokens of a caption.
        **loader: As in `ImageTextDataModule`.

    Raises:
        UserError: An argument is out of its range, or a package is missing.
    """

    def __init__(
        self,
        root: str,
        *,
        exclude_images_of: list[str] | None = None,
        exclude_splits: list[Split] | None = None,
        exclude_near_duplicates: bool = True,
        text_length: int = 32,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        if unknown := [split for split in exclude_splits or () if split not in get_args(Split)]:
            raise UserError(f"exclude_splits: there is no '{unknown[0]}'; there are {', '.join(get_args(Split))}")
        super().__init__(root, text_length=text_length, **loader)
        self.excluded = [other_data(given, "--data.exclude_images_of") for given in exclude_images_of or ()]
        self.exclude_splits = tuple(exclude_splits or MEASURED_ON)
        self.exclude_near_duplicates = exclude_near_duplicates
        if self.excluded and exclude_near_duplicates and not can_hash():
            raise UserError(f"exclude_images_of: {MISSING}; or set exclude_near_duplicates to false")
        self._excluded_images: list[set[str]] = []

    @abstractmethod
    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the splits as published.

        Args:
            problems: Takes rows that cannot be used.

        Raises:
            UserError: Not one split is there; `nothing_found` words it.
        """

    def read(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """The splits as published, without the images that are to be left out.

        Raises:
            UserError: Not one split is there; or a data set whose images are to be left out cannot be read.
        """
        splits = self.read_published(problems)
        if not self.excluded:
            return splits
        here = self.find_images(record.image for records in splits.values() for record in records)
        others = [images_of(data, self.exclude_splits) for data in self.excluded]
        for data, (images, _) in zip(self.excluded, others, strict=True):
            if not images:
                raise UserError(
                    f"exclude_images_of: {data.title} in {data.root} has no image in {' or '.join(self.exclude_splits)}"
                )
        found = find_shared(here, [images for images, _ in others], near_duplicates=self.exclude_near_duplicates)
        self._excluded_images = [set() for _ in self.excluded]
        for split, records in splits.items():
            names = {record.image for record in records}
            leaks: set[str] = set()
            for so_far, pairs, (_, places) in zip(self._excluded_images, found, others, strict=True):
                # What both hold out as the same split is trained on in neither: they may be parts of one corpus.
                harmless = [] if split == "train" else [split]
                shared = {pair.here for pair in pairs if pair.here in names and places[pair.there] != harmless}
                so_far |= shared
                leaks |= shared
            splits[split] = [record for record in records if record.image not in leaks]
        log.info("%s: left out %s", self.title, self._left_out_of())
        return splits

    @property
    def description(self) -> dict[str, str]:
        """The data set, the number of rows of each split that was used, and the images that were left out."""
        description = super().description
        if self._excluded_images:
            description["left out"] = self._left_out_of()
        return description

    def _left_out_of(self) -> str:
        told = [
            f"{len(images)} image{'' if len(images) == 1 else 's'} of {data.title}"
            for data, images in zip(self.excluded, self._excluded_images, strict=True)
        ]
        unseen = "" if self.exclude_near_duplicates else "; near-duplicates were not looked for"
        return f"{', '.join(told)} ({', '.join(self.exclude_splits)}){unseen}"
