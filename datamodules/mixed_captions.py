"""Several data sets of captions as one, each with its share of what a training sees."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.arguments import LoaderArguments, Unpack
from datamodules.captions import CaptionArguments, CaptionDataModule, CaptionRecord
from datamodules.leaks import data_class
from datamodules.loading import EndlessSequence, EpochSampler
from datamodules.problems import Problems
from datamodules.records import Split
from umd.files import UserError

_FOR_ALL = (*LoaderArguments.__annotations__, "text_length")
"""What stands once, for all sources."""


@dataclass(frozen=True)
class CaptionSource:
    """One of the data sets that are mixed.

    Attributes:
        data: Its class, such as MedPixCaptions; one of one's own with its module.
        root: Its folder, relative to that of the mix.
        weight: Its share of the pairs of an epoch, relative to the other weights; None: its number of training rows.
        exclude_images_of: As in `CaptionDataModule`, for this source alone; folders are relative to that of the mix.
        options: What else its class takes, by name, such as MedPix's `details`.
    """

    data: str
    root: str
    weight: float | None = None
    exclude_images_of: list[str] | None = None
    options: dict[str, Any] | None = None


def shares(weights: Sequence[float], rows: int) -> list[int]:
    """So many whole rows for each weight, `rows` in all; what is left after rounding down goes to the largest rests."""
    wanted = [rows * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in wanted]
    by_rest = sorted(range(len(weights)), key=lambda place: counts[place] - wanted[place])
    for place in by_rest[: rows - sum(counts)]:
        counts[place] += 1
    return counts


class MixedSampler(EpochSampler):
    """An epoch of as many pairs as there are rows, of each source its share.

    A source is gone through in a shuffled order of its own, and on into the next epochs, so that its rows are seen
    equally often. Which rows an epoch has follows from the seed and the epoch alone.

    Args:
        dataset: The rows of the sources, one source after the other.
        sizes: How many rows each source has.
        counts: How many pairs of an epoch each source gives; their sum is that of `sizes`.
        replicas: Processes.
        rank: Number of this one.
        seed: Of the orders.
    """

    def __init__(
        self,
        dataset: EndlessSequence[CaptionRecord],
        sizes: Sequence[int],
        counts: Sequence[int],
        *,
        replicas: int,
        rank: int,
        seed: int,
    ) -> None:
        super().__init__(dataset, num_replicas=replicas, rank=rank, seed=seed)
        self.sizes = tuple(sizes)
        self.counts = tuple(counts)
        self._starts = [0, *accumulate(sizes)]
        self._bounds = [0, *accumulate(counts)]

    def key(self, place: int) -> int:
        """The key of this place of the epoch, whose first places are the first source's, and so on."""
        source = bisect_right(self._bounds, place) - 1
        seen = self.epoch * self.counts[source] + place - self._bounds[source]
        turn, position = divmod(seen, self.sizes[source])
        row = self._starts[source] + int(_order(self.seed, source, turn, self.sizes[source])[position])
        return turn * self._starts[-1] + row


@lru_cache(maxsize=64)
def _order(seed: int, source: int, turn: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng((seed, source, turn)).permutation(size)


class MixedCaptions(CaptionDataModule):
    """Several data sets of captions, each with its splits and the images that it leaves out, as one.

    Validation and test are those of the sources that have them, one after the other. An epoch has as many pairs as
    the sources have training rows.

    Args:
        root: The folder that those of the sources are relative to.
        sources: The data sets, two or more.
        **captions: As in `CaptionDataModule`; `exclude_images_of` is for all sources, beside their own.

    Raises:
        UserError: An argument is out of its range, or a source cannot be one.
    """

    layout = "the folders of its sources"

    def __init__(self, root: str, *, sources: list[CaptionSource], **captions: Unpack[CaptionArguments]) -> None:
        weights = [source.weight for source in sources]
        if len(sources) < 2:
            raise UserError(f"sources: {len(sources)} given; a mix is of two data sets or more")
        if None in weights and set(weights) != {None}:
            raise UserError("sources: give each a weight, or none of them")
        if wrong := [weight for weight in weights if weight is not None and not weight > 0]:
            raise UserError(f"sources: a weight must be above 0, not {wrong[0]}")
        self.sources = [_made(source, Path(root).expanduser()) for source in sources]
        titles = [source.title for source in self.sources]
        self.title = " + ".join(titles)
        super().__init__(root, **captions)
        self.hparams["sources"] = [asdict(source) for source in sources]  # what checkpoints hold is plain
        self.weights = [weight for weight in weights if weight is not None]
        self._names = [
            title if titles.count(title) == 1 else f"{title} {number}" for number, title in enumerate(titles, 1)
        ]

    def locate(self, image: str) -> Any:  # noqa: ANN401 - whatever the source has
        """The file of an image name, whose first part is the source's."""
        name, _, rest = image.partition("/")
        return self.sources[self._names.index(name)].locate(rest)

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """The splits of the sources, each as the source has them, one after the other.

        Raises:
            UserError: A source cannot be read.
        """
        splits: dict[Split, list[CaptionRecord]] = {}
        for name, source in zip(self._names, self.sources, strict=True):
            if not source.root.is_dir():
                raise source.nothing_found()
            for split, records in source.read(problems).items():
                splits.setdefault(split, []).extend(_below(name, record) for record in records)
        return splits

    def make_sampler(self, dataset: EndlessSequence[CaptionRecord], replicas: int, rank: int) -> EpochSampler:
        """Of each source its share of an epoch.

        Raises:
            UserError: A source has no training row, or a share is less than a row.
        """
        sizes, counts = self._shares()
        return MixedSampler(dataset, sizes, counts, replicas=replicas, rank=rank, seed=self.seed)

    @property
    def description(self) -> dict[str, str]:
        """What all data sets say of themselves, the sources' shares of an epoch, and what each of them left out."""
        description = super().description
        if "train" in self._usable:
            sizes, counts = self._shares()
            told = [
                f"{name} {count} from {size} rows" for name, size, count in zip(self._names, sizes, counts, strict=True)
            ]
            description["pairs of an epoch"] = ", ".join(told)
        for name, source in zip(self._names, self.sources, strict=True):
            if "left out" in (said := source.description):
                description[f"left out of {name}"] = said["left out"]
        return description

    def _shares(self) -> tuple[list[int], list[int]]:
        """How many rows each source has to train on, and how many pairs of an epoch it gives."""
        owners = [record.image.partition("/")[0] for record in self.records("train")]
        sizes = [owners.count(name) for name in self._names]
        if 0 in sizes:
            raise UserError(f"{self._names[sizes.index(0)]} has no training row: leave it out of the sources")
        counts = shares(self.weights or sizes, len(owners))
        if 0 in counts:
            place = counts.index(0)
            raise UserError(
                f"sources: the share of {self._names[place]} (weight {self.weights[place]:g} of {sum(self.weights):g}) "
                f"of {len(owners)} rows is less than one"
            )
        return sizes, counts


def _made(source: CaptionSource, above: Path) -> CaptionDataModule:
    """The data module of a source.

    Raises:
        UserError: There is no such class of captions, or it does not take an option.
    """
    given = f"sources: data: {source.data}"
    kind = data_class(source.data, given)
    if not issubclass(kind, CaptionDataModule) or issubclass(kind, MixedCaptions):
        raise UserError(f"{given}: only data sets of captions are mixed, such as MedPixCaptions")
    options = dict(source.options or {})
    if common := [name for name in options if name in _FOR_ALL]:
        raise UserError(f"{given}: {common[0]} stands once, for all sources (--data.{common[0]})")
    parts = [entry.partition("=") for entry in source.exclude_images_of or ()]
    excluded = [f"{name}{equals}{above / Path(folder).expanduser()}" for name, equals, folder in parts]
    root = str(above / Path(source.root).expanduser())
    try:
        made = kind(root, exclude_images_of=excluded or None, **options)
    except TypeError as error:
        raise UserError(f"{given}: {error}") from error
    made.root_option = "the root of its source, below --data.root,"
    return made


def _below(name: str, record: CaptionRecord) -> CaptionRecord:
    return replace(record, sample_id=f"{name}/{record.sample_id}", image=f"{name}/{record.image}")
