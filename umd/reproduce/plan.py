"""A plan: every cell of a table with the step that fills it. Pure data, made before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from umd.files import UserError
from umd.reproduce.experiment import Experiment, Row
from umd.reproduce.graph import Benchmark, Graph, Protocol
from umd.reproduce.scales import PHANTOM, Setting
from umd.reproduce.steps import Step, in_order


@dataclass(frozen=True)
class Cell:
    """One result of a table.

    Attributes:
        row: which row.
        benchmark: on which data, under which protocol and seed.
        step: what makes it.
    """

    row: Row
    benchmark: Benchmark
    step: Step


@dataclass(frozen=True)
class Plan:
    """What one call of `umd reproduce` makes.

    Attributes:
        experiment: the table or figure.
        setting: at which scale, from which data.
        cells: its results.
        data: for each data set and protocol, the step that says what it holds.
        costs: by row, the step that says what its training costs; empty where that is not asked.
    """

    experiment: Experiment
    setting: Setting
    cells: tuple[Cell, ...]
    data: tuple[tuple[Benchmark, Step], ...]
    costs: tuple[tuple[str, Step], ...] = ()

    @property
    def steps(self) -> list[Step]:
        """All steps, each once, behind all that it needs; what the data holds comes first."""
        wanted = [cell.step for cell in self.cells] + [step for _, step in self.costs]
        return list(in_order([step for _, step in self.data] + wanted))

    def rows_on(self, benchmark: Benchmark) -> Iterator[list[Cell]]:
        """Of each row its cells on this data set and protocol, one a seed."""
        here = [cell for cell in self.cells if cell.benchmark.key == benchmark.key]
        for name in dict.fromkeys(cell.row.name for cell in here):
            yield [cell for cell in here if cell.row.name == name]


def make_plan(
    experiment: Experiment,
    setting: Setting,
    *,
    rows: Sequence[str],
    datasets: Sequence[str],
    protocols: Sequence[Protocol],
    seeds: Sequence[int],
) -> Plan:
    """The plan of some rows of an experiment.

    Args:
        experiment: which table or figure.
        setting: at which scale, from which data.
        rows: names of rows.
        datasets: names of data sets; the phantom's at the embedded scale.
        protocols: for question answering; other tasks have none.
        seeds: of calibration and fine-tuning.

    Raises:
        UserError: a row or data set that the experiment does not have.
    """
    known = [row.name for row in experiment.rows]
    unknown = [name for name in rows if name not in known]
    if unknown:
        raise UserError(f"{experiment.name} has no row '{unknown[0]}'; it has {', '.join(known)}")
    allowed = (PHANTOM,) if setting.scale == "embedded" else experiment.datasets
    for name in datasets:
        if name not in allowed:
            raise UserError(
                f"{experiment.name} at the {setting.scale} scale has no data set '{name}'; it has {', '.join(allowed)}"
            )
    if setting.scale == "small" and experiment.name.startswith(("perturbation", "figure3")):
        raise UserError("the small scale freezes the vision encoder, and nothing is left to perturb: use another one")
    graph = Graph(setting)
    under: Sequence[Protocol | None] = protocols if experiment.task == "vqa" else [None]
    cells: list[Cell] = []
    data: list[tuple[Benchmark, Step]] = []
    for dataset in datasets:
        for protocol in under:
            here = [
                Cell(row, benchmark, row.build(graph, benchmark))
                for row in experiment.chosen(rows)
                for benchmark in (Benchmark(experiment.task, dataset, protocol, seed) for seed in seeds)
            ]
            cells += here
            data.append((here[0].benchmark, _data_of(here[0].step)))
    costs: list[tuple[str, Step]] = []
    # Of a process that waits for a GPU, CPU seconds say nothing.
    if experiment.costs and setting.scale != "paper":
        first = cells[0].benchmark
        costs = [(cell.row.name, graph.cost(cell.step)) for cell in cells if cell.benchmark == first]
    return Plan(experiment, setting, tuple(cells), tuple(data), tuple(costs))


def _data_of(step: Step) -> Step:
    """The step that looked at the data on which a result was measured."""
    while step.data is None:
        assert step.source is not None
        step = step.source
    return step.data
