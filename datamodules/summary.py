"""What a data set holds under the settings in use, before anything is trained."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from rich.table import Table

from datamodules.records import Split


@dataclass
class Summary:
    """What a data module says of its data: plain values, which JSON takes as they are, and how they are shown.

    Accuracies and ceilings are in per cent, None where there is nothing to measure.

    Attributes:
        splits: The counts of each split, by their names.
        facts: What else there is to say, by name.
        tables: The facts for the terminal.
        test_file: Name of the file that `test_rows` belong in; None where there are none.
        test_rows: One row for each row of the test split, in its order.
        heads: What a count is called in the terminal, where not by its name.
    """

    splits: dict[Split, dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)
    tables: list[Table | str] = field(default_factory=list)
    test_file: str | None = None
    test_rows: list[dict[str, Any]] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)


def shown(summary: Summary, description: Mapping[str, str]) -> Iterable[Table | str]:
    """A summary for the terminal, under what the data module says about itself ("data" names the data set)."""
    splits = summary.splits
    told = [f"{key}: {value}" for key, value in description.items() if key not in ("data", *splits)]
    table = Table(title=", ".join([description["data"], *told]), title_justify="left")
    table.add_column("split")
    names = [name for name, count in next(iter(splits.values())).items() if isinstance(count, int)]
    for name in names:
        table.add_column(summary.heads.get(name, name.replace("_", " ")), justify="right")
    for split, counts in splits.items():
        table.add_row(split, *(f"{counts[name]:,}" for name in names))
    yield table
    if missing := [split for split in get_args(Split) if split not in splits]:
        yield f"there is no {' and no '.join(missing)} split"
    yield from summary.tables


def per_cent(flags: Iterable[bool]) -> float | None:
    """How many of a hundred are true; None of nothing."""
    given = list(flags)
    return 100.0 * sum(given) / len(given) if given else None


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV text with a header; true and false in small letters."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: str(value).lower() if isinstance(value, bool) else value for key, value in row.items()})
    return text.getvalue()
