"""Which sample comes when, and with which augmentation: functions of the seed and the epoch alone.

Neither the number of workers nor what else drew random numbers changes the data, so an interrupted run goes
on with the batches that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.images import ImageFile
from datamodules.records import RecordT


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

    Args:
        records: The split's n rows.
        paths: Where each image name is stored.
        load: Reads an image.
        transform: From the decoded image to (3, S, S) uint8; may draw from torch's global CPU generator.
        seed: Of the augmentation.
        vary_text: Choose among a row's texts (training) or take its first one (evaluation).
    """

    def __init__(
        self,
        records: Sequence[RecordT],
        paths: Mapping[str, ImageFile],
        load: Callable[[ImageFile], Image.Image],
        transform: Callable[[Image.Image], Tensor],
        *,
        seed: int,
        vary_text: bool,
    ) -> None:
        self.records = records
        self.paths = paths
        self.load = load
        self.transform = transform
        self.seed = seed
        self.vary_text = vary_text

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int) -> Item[RecordT]:
        epoch, index = divmod(key, len(self.records))
        record = self.records[index]
        image = self.load(self.paths[record.image])
        random = np.random.default_rng((self.seed, epoch, index))
        text = record.text
        if self.vary_text and record.alternative_texts:
            text = (record.text, *record.alternative_texts)[random.integers(1 + len(record.alternative_texts))]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(random.integers(2**63)))
            return Item(record, self.transform(image), text, index)


class EpochSampler(DistributedSampler[Any]):
    """Torch's distributed shuffle (one replica: an ordinary one), yielding keys of an `EndlessSequence`.

    Lightning leaves a DistributedSampler as it is and tells it the epoch.

    Attributes:
        skip: Samples that the next pass leaves out at its start: they were used before an interruption.
    """

    skip: int = 0

    def __iter__(self) -> Iterator[int]:
        keys = [self.key(place) for place in super().__iter__()]
        skip, self.skip = self.skip, 0
        return iter(keys[skip:])

    def key(self, place: int) -> int:
        """The key of this place of the epoch: the row of that number, in the pass of the epoch's number."""
        return self.epoch * len(cast(EndlessSequence[Any], self.dataset)) + place


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
