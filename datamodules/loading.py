"""Which sample comes when, and with which augmentation: functions of the seed and the epoch alone.

Neither the number of workers nor what else drew random numbers changes the data, so an interrupted run goes
on with the batches that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.images import ImageFile
from datamodules.records import RecordT

KEPT_VIEWS = 4096
"""Views that are kept in memory where an image has a fixed number of them: 600 MB of 224 x 224 pixels at most."""


@dataclass(frozen=True, slots=True)
class Item(Generic[RecordT]):
    """A record with its image, on its way to the collate function.

    Attributes:
        record: The row.
        image: (3, S, S) uint8.
        text: The row's text, or one of its alternative texts.
        index: Place of the row in its split.
    """

    record: RecordT
    image: Tensor
    text: str
    index: int


class EndlessSequence(Dataset[Item[RecordT]]):
    """A split as an endless sequence: item k is row k mod n in pass k // n, augmented by (seed, pass, row).

    Items that are asked for together share one tensor where their images are the same and `one_view` is set.

    Args:
        records: The split's n rows.
        paths: Where each image name is stored.
        load: Reads an image.
        transform: From what `load` gives to (3, S, S) uint8; may draw from torch's global CPU generator.
        seed: Of the augmentation.
        vary_text: Choose among a row's texts (training) or take its first one (evaluation).
        one_view: Rows of one image that are asked for together have one view of it, that of the first of them;
            where the transform draws nothing, it is the view of each.
        views: So many views that the transform makes of an image, of which a row has one in each pass; None: each
            pass has new ones.
    """

    def __init__(
        self,
        records: Sequence[RecordT],
        paths: Mapping[str, ImageFile],
        load: Callable[[ImageFile], Any],
        transform: Callable[[Any], Tensor],
        *,
        seed: int,
        vary_text: bool,
        one_view: bool,
        views: int | None = None,
    ) -> None:
        self.records = records
        self.paths = paths
        self.load = load
        self.transform = transform
        self.seed = seed
        self.vary_text = vary_text
        self.one_view = one_view
        self.views = views
        self._kept: dict[tuple[str, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int) -> Item[RecordT]:
        return self.item(key, {})

    def __getitems__(self, keys: Sequence[int]) -> list[Item[RecordT]]:
        """The items of a batch; a DataLoader asks for them at once."""
        seen: dict[str, Tensor] = {}
        return [self.item(key, seen) for key in keys]

    def item(self, key: int, seen: dict[str, Tensor]) -> Item[RecordT]:
        """Item `key`; views that may serve others are taken from `seen`, and put there, by the image's name."""
        epoch, index = divmod(key, len(self.records))
        record = self.records[index]
        random = np.random.default_rng((self.seed, epoch, index))
        text = record.text
        if self.vary_text and record.alternative_texts:
            text = (record.text, *record.alternative_texts)[random.integers(1 + len(record.alternative_texts))]
        image = seen.get(record.image)
        if image is None:
            image = self._view(record.image, int(random.integers(2**63)))
            if self.one_view:
                seen[record.image] = image
        return Item(record, image, text, index)

    def _view(self, name: str, seed: int) -> Tensor:
        if self.views is None:
            return self._drawn(name, seed)
        key = (name, seed % self.views)
        view = self._kept.get(key)
        if view is None:
            view = self._drawn(name, hash_seed(self.seed, *key))
            if len(self._kept) < KEPT_VIEWS:
                self._kept[key] = view
        return view

    def _drawn(self, name: str, seed: int) -> Tensor:
        image = self.load(self.paths[name])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(image)


def hash_seed(*key: object) -> int:
    """A seed below 2^63 that follows from the key alone."""
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest()) >> 1


class EpochSampler(DistributedSampler[Any]):
    """Torch's distributed shuffle (one replica: an ordinary one), yielding keys of an `EndlessSequence`.

    Lightning leaves a DistributedSampler as it is and tells it the epoch.

    Attributes:
        skip: Samples that the next pass leaves out at its start: they were used before an interruption.
    """

    skip: int = 0

    def order(self) -> list[int]:
        """This rank's places in the split, in the order of this epoch."""
        return list(super().__iter__())

    def __iter__(self) -> Iterator[int]:
        keys = [self.key(place) for place in self.order()]
        skip, self.skip = self.skip, 0
        return iter(keys[skip:])

    def key(self, place: int) -> int:
        """The key of this place of the epoch: the row of that number, in the pass of the epoch's number."""
        return self.epoch * len(cast(EndlessSequence[Any], self.dataset)) + place


class ImageByImageSampler(EpochSampler):
    """The same, drawn image by image: rows of one image follow each other, see `image_by_image`.

    Each rank has a stretch of the epoch's order; as torch does, the first rows are repeated at its end until all ranks
    have as many.

    Args:
        dataset: The split.
        rows_per_image: Most rows of one image that follow each other.
        num_replicas: Number of ranks.
        rank: This one.
        seed: Of the order.
    """

    def __init__(
        self, dataset: EndlessSequence[Any], *, rows_per_image: int, num_replicas: int, rank: int, seed: int
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)
        self.images = [record.image for record in dataset.records]
        self.rows_per_image = rows_per_image

    def order(self) -> list[int]:
        """See `EpochSampler.order`."""
        random = np.random.default_rng((self.seed, self.epoch))
        places = image_by_image(self.images, self.rows_per_image, random)
        return [
            places[k % len(places)] for k in range(self.rank * self.num_samples, (self.rank + 1) * self.num_samples)
        ]


def image_by_image(images: Sequence[str], most: int, random: np.random.Generator) -> list[int]:
    """All rows in an order in which up to `most` rows of one image follow each other, in as few groups as that allows.

    Which rows of an image go together is drawn, and so is when they come.

    Args:
        images: The name of each row's image.
        most: Rows of one image that follow each other, at least 1.
        random: What draws.
    """
    rows: dict[str, list[int]] = {}
    for place in random.permutation(len(images)).tolist():
        rows.setdefault(images[place], []).append(place)
    groups = [of_one[k :: -(-len(of_one) // most)] for of_one in rows.values() for k in range(-(-len(of_one) // most))]
    return [place for group in random.permutation(len(groups)) for place in groups[group]]


class WatchedDataLoader(DataLoader[Any]):
    """A loader that says so when one of its workers dies.

    Torch notices a dead worker, unless the worker goes while a batch is being handed over: then what comes is an
    error of the connection, which says nothing to a user.

    Workers start with the first batch, not when the iterator is made: Lightning makes it before it sets the
    epoch.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except (ConnectionError, EOFError) as error:
            if self.num_workers == 0:
                raise
            raise RuntimeError(
                "a DataLoader worker exited unexpectedly; if the system killed it for want of memory, "
                "fewer workers (--data.num_workers) need less"
            ) from error


class ResumableDataLoader(WatchedDataLoader):
    """A loader for training that can start in the middle of an epoch."""

    _epoch: int = 0
    _batches: int = 0
    _resume: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self.sampler
        self._epoch, self._batches = getattr(sampler, "epoch", 0), 0
        if isinstance(sampler, EpochSampler) and self._resume is not None:
            epoch, batches = self._resume
            if epoch == sampler.epoch and batches < len(self):
                self._batches = batches
                sampler.skip = batches * (self.batch_size or 1)
        self._resume = None
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of its batches that were handed out."""
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The first pass, if it is in the same epoch, begins after the batches that were handed out."""
        self.start_inside(state["epoch"], state["batches"])

    def start_inside(self, epoch: int, batches: int) -> None:
        """Leave out so many batches of the next pass if it is in this epoch."""
        self._resume = self._epoch, self._batches = epoch, batches
