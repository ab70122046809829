"""`umd data --against`: the images that a data set shares with others, split by split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

from rich.table import Table

from datamodules.base import ImageTextDataModule
from datamodules.leaks import MISSING, Shared, Way, can_hash, find_shared, images_of, other_data
from datamodules.records import Split

SHARED_FILE = "shared_images.csv"
SHOWN = 3
"""Images that are named for two splits; SHARED_FILE has them all."""

_SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Comparison:
    """A data set held against another one.

    Attributes:
        data: The other one.
        here: The splits of each image of the first that is in both.
        there: The splits of each image of the other one.
        shared: The pairs of images that are the same.
    """

    data: ImageTextDataModule[Any]
    here: Mapping[str, list[Split]]
    there: Mapping[str, list[Split]]
    shared: Sequence[Shared]

    def facts(self) -> dict[str, Any]:
        """What was found, as plain values."""
        return {
            "data": self.data.title,
            "root": str(self.data.root.absolute()),
            "images": len(self.there),
            "near_duplicates_looked_for": can_hash(),
            "shared": {"images": len(_images(self.shared)), **_known(self.shared)},
            "by_split": [
                {
                    "here": here,
                    "there": there,
                    "images": len(_images(pairs)),
                    **_known(pairs),
                    "first": [[pair.here, pair.there] for pair in pairs[:SHOWN]],
                }
                for here, there, pairs in self._by_split()
            ],
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each pair."""
        for pair in self.shared:
            yield {
                "data": self.data.title,
                "image": pair.here,
                "splits": " ".join(self.here[pair.here]),
                "other_image": pair.there,
                "other_splits": " ".join(self.there[pair.there]),
                **{_key(way): way in pair.ways for way in get_args(Way)},
            }

    def shown(self, title: str) -> Iterator[Table | str]:
        """The same for the terminal; `title` is the first data set's."""
        known = ", ".join(f"{way} {_known(self.shared)[_key(way)]}" for way in get_args(Way))
        count = len(_images(self.shared))
        head = f"{count:,} images of {title} are among the {len(self.there):,} of {self.data.title} ({known})"
        if not can_hash():
            head += f"; {MISSING}"
        if not self.shared:
            yield head
            return
        table = Table(title=head, title_justify="left")
        for column in ("here", f"in {self.data.title}"):
            table.add_column(column)
        for column in ("images", *get_args(Way)):
            table.add_column(column, justify="right")
        for here, there, pairs in self._by_split():
            table.add_row(here, there, *map(str, (len(_images(pairs)), *_known(pairs).values())))
        yield table
        yield "An image may be in several splits. The first ones:"
        for here, there, pairs in self._by_split():
            names = ", ".join(f"{pair.here} = {pair.there}" for pair in pairs[:SHOWN])
            more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
            yield f"{here}, there {there}: {names}{more}"

    def _by_split(self) -> Iterator[tuple[Split, Split, list[Shared]]]:
        for here, there in product(_SPLITS, _SPLITS):
            pairs = [one for one in self.shared if here in self.here[one.here] and there in self.there[one.there]]
            if pairs:
                yield here, there, pairs


def compare(data: ImageTextDataModule[Any], against: Sequence[str]) -> list[Comparison]:
    """Holds a data set against others, each given as CLASS=FOLDER.

    Near-duplicates are looked for where the package for it is installed; each comparison says whether they were.

    Raises:
        UserError: One is not written so, or cannot be read.
    """
    others = [other_data(given, "--against") for given in against]
    files, splits = images_of(data, _SPLITS)
    sides = [images_of(other, _SPLITS) for other in others]
    found = find_shared(files, [side[0] for side in sides], near_duplicates=can_hash())
    return [
        Comparison(other, splits, side[1], shared) for other, side, shared in zip(others, sides, found, strict=True)
    ]


def _images(pairs: Sequence[Shared]) -> set[str]:
    return {pair.here for pair in pairs}


def _known(pairs: Sequence[Shared]) -> dict[str, int]:
    """How many images are known in each way."""
    return {_key(way): len({pair.here for pair in pairs if way in pair.ways}) for way in get_args(Way)}


def _key(way: Way) -> str:
    return way.replace(" ", "_").replace("-", "_")
