"""What was asked, as the referee needs it: plain columns, so that it does not matter where the questions come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of one split.

    Attributes:
        title: data set, protocol and split, for headings.
        table: a row a question, in the order of the split: `question_id`, `image`, `question`, `accepted` (a tuple of
            the answers that count as right, normalised; none where the data set gives none), `closed`, `has_twin`,
            `image_in_train`, `answer_in_train`, and a column for each of `attributes`.
        attributes: columns of the table that say of which kind a question is, with the name of the kind: each of
            their values is a group.
        fools: what can be answered without looking at the image, by the name of who does: an answer a question.
        notes: what a reader must know of these questions, a line each.
        sources: where they are published, a line each.
    """

    title: str
    table: pd.DataFrame
    attributes: Mapping[str, str] = field(default_factory=dict)
    fools: Mapping[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def only(self, asked: pd.Series) -> Questions:
        """Those where `asked` is true, in their order; all else as it is."""
        chosen = asked.to_numpy(dtype=bool)
        fools = {
            name: [answer for answer, kept in zip(answers, chosen, strict=True) if kept]
            for name, answers in self.fools.items()
        }
        table = self.table[chosen].reset_index(drop=True)
        return replace(self, table=table, fools=fools)
