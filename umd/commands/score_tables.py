"""What the referee says, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any, Final

from rich import box
from rich.table import Table

from umd.commands.compare import in_parts, paired_table
from umd.protocols import FEW, FEW_NOTE
from umd.scoring.scored import Scored
from umd.scoring.scores import METRICS_IN_WORDS, WHOLE, interval_text

BELOW: Final = "<"


def shown(result: Scored, width: int) -> Iterator[Table | str]:
    """Tables and notes for a terminal of `width` characters."""
    yield from _accuracies(result, width)
    yield _marks(result)
    if result.controls:
        yield _controls(result)
    if len(result.pairs):
        yield paired_table(result.pairs)
        yield _agreement(result)
    yield "\n".join(f"- {note}" for note in result.notes)


def _accuracies(result: Scored, width: int) -> Iterator[Table]:
    """Groups down; systems and then fools across, as many in a table as there is room for.

    A single system's accuracies have their intervals below them; of several the differences have, in a table of pairs.
    """
    cells: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in result.rows:
        cells.setdefault(row["group"], {})[row["system"]] = row
    fools, alone = list(result.questions.fools), len(result.matched) == 1
    title = f"{result.questions.title}: accuracy in per cent"
    if alone:
        title += "\n[95 % interval over questions]\n[95 % interval over images; - of a single one]"
        if any(row["images"] < FEW for row in result.rows):
            title += f"\n{FEW_NOTE}"
    if fools:
        title += f"\n{BELOW} less than is right without a look at the image, by one of the last {len(fools)} columns"

    def table(names: Sequence[str]) -> Table:
        made = _table(title)
        made.add_column("questions", overflow="fold")
        made.add_column("(images)", justify="right", no_wrap=True)
        for name in names:
            made.add_column(fill(name, 9) if name in fools else name, justify="right", no_wrap=name in fools)
        for group, rows in cells.items():
            row = next(iter(rows.values()))
            counted = f"{row['questions']:,} ({row['images']:,})"
            made.add_row(group, counted, *(_cell(rows[name], alone) for name in names))
        return made

    yield from in_parts(table, [*result.matched, *fools], width)


def _cell(row: Mapping[str, Any], with_intervals: bool) -> str:
    value = f"{BELOW + ' ' if row['below'] else ''}{row['accuracy']:.1f}"
    if row["fool"] or not with_intervals:
        return value
    return f"{value}\n{interval_text(row, 'interval')}\n{interval_text(row, 'image_interval')}"


def _marks(result: Scored) -> Table:
    """Systems and fools down, metrics across, on the groups of every report."""
    table = _table("Means over questions, in per cent")
    table.add_column("questions", overflow="fold")
    for head in METRICS_IN_WORDS.values():
        words = fill(head, 6, break_long_words=False, break_on_hyphens=False)
        table.add_column(words, justify="right", no_wrap=True)
    for name in result.graded:
        table.add_row(name)
        for row in result.rows:
            if row["system"] == name and row["group"] in WHOLE:
                table.add_row(f"  {row['group']}", *(f"{row[metric]:.1f}" for metric in METRICS_IN_WORDS))
    return table


def _controls(result: Scored) -> Table:
    table = _table(
        "The same questions asked otherwise, in per cent\n[95 % interval over questions]\n[95 % interval over images]\n"
        "as asked: accuracy on these questions as they are; changed: share with another answer than as asked"
    )
    table.add_column("control", overflow="fold")
    table.add_column("questions\n(images)", justify="right", no_wrap=True)
    for head in ("accuracy", "as asked", "both right", "changed"):
        table.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in result.controls:
        table.add_row(
            row["control"],
            f"{row['questions']:,} ({row['images']:,})",
            f"{row['accuracy']:.1f}\n{interval_text(row, 'interval')}\n{interval_text(row, 'image_interval')}",
            f"{row['as_asked']:.1f}",
            f"{row['both_right']:.1f}",
            f"{row['changed']:.1f}\n{interval_text(row, 'changed_interval')}",
        )
    return table


def _agreement(result: Scored) -> Table:
    table = _table("Agreement, in per cent of all questions")
    table.add_column("pair", overflow="fold")
    for head in ("same answer", "both right", "only first right", "only second right", "both wrong"):
        table.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in result.agreement:
        one, other, *shares = row.values()
        table.add_row(f"{one} and {other}", *(f"{share:.1f}" for share in shares))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
