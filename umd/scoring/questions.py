"""What was asked, as the referee needs it: plain columns, so that it does not matter where the questions come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of one split.

    Attributes:
        title: data set, protocol and split, for headings.
        table: a row a question, in the order of the split: `question_id`, `image`, `question`, `accepted` (a tuple of
            the answers that count as right, normalised; none where the data set gives none), `closed`, `has_twin`.
        groups: further groups of the questions, as members by place.
        fools: what can be answered without looking at the image, by the name of who does: an answer a question.
        twins: the reworded form of those questions that have one, a row each with the columns of `table`, and `of`:
            the id of the question.
        notes: what a reader must know of these questions, a line each.
        sources: where they are published, a line each.
    """

    title: str
    table: pd.DataFrame
    groups: Mapping[str, list[bool]] = field(default_factory=dict)
    fools: Mapping[str, list[str]] = field(default_factory=dict)
    twins: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def apart_from(self, systems: Collection[str]) -> Questions:
        """The same, where no fool is called like one of these systems."""
        fools = {f"{name} (no look)" if name in systems else name: said for name, said in self.fools.items()}
        return replace(self, fools=fools)

    def only(self, asked: pd.Series) -> Questions:
        """Those where `asked` is true, in their order; all else as it is."""
        chosen = asked.to_numpy(dtype=bool)

        def kept(values: list[T]) -> list[T]:
            return [value for value, keep in zip(values, chosen, strict=True) if keep]

        fools = {name: kept(answers) for name, answers in self.fools.items()}
        groups = {name: kept(members) for name, members in self.groups.items()}
        table = self.table[chosen].reset_index(drop=True)
        return replace(self, table=table, fools=fools, groups=groups)
