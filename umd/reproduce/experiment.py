"""What a table or figure is: rows, each with the step that its result comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from umd.reproduce.graph import Benchmark, Graph, Protocol
from umd.reproduce.scales import Task
from umd.reproduce.steps import Step

Kind = Literal["ours", "control"]
Build = Callable[[Graph, Benchmark], Step]


@dataclass(frozen=True)
class Row:
    """One row of a table: how its result comes about.

    Attributes:
        name: as on the command line.
        title: as in the table.
        build: the step whose test is the row's result on a benchmark.
        paper: the row's name among the paper's figures; None where no paper has it.
        kind: "ours", or "control" for a row that shows what the data or one modality alone gives.
    """

    name: str
    title: str
    build: Build
    paper: str | None = None
    kind: Kind = "ours"


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: as on the command line.
        title: what it shows.
        task: of all its rows.
        paper: key of the paper's figures in paper.json; None where there are none to compare with.
        rows: its rows in their order.
        default_rows: names of the rows that are run at the embedded scale unless others are asked for; None: all.
        datasets: of the paper, as folders of the data root and files of configs/data/; the first is a figure's default.
        figure: whether a figure, not a table, is wanted.
        against: the row that is compared with each other one.
        baseline: in its place, the row that each other one is compared with, corrected by Holm for their number.
        protocols: of question answering, unless others are asked for.
        costs: whether the rows' extra cost a training step is measured.
        notes: what a reader must know of the rows, a line each.
    """

    name: str
    title: str
    task: Task
    paper: str | None
    rows: tuple[Row, ...]
    default_rows: tuple[str, ...] | None = None
    datasets: tuple[str, ...] = ()
    figure: bool = False
    against: str = ""
    baseline: str = ""
    protocols: tuple[Protocol, ...] = ("clean", "paper")
    costs: bool = False
    notes: tuple[str, ...] = ()

    def chosen(self, names: Sequence[str]) -> Iterator[Row]:
        """The rows of these names, in the table's order."""
        return (row for row in self.rows if row.name in names)
