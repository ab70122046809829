"""`umd compare`: the test results of several runs side by side; over seeds, and pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from umd.commands.tool_parser import ToolParser
from umd.files import UserError, write_whole, writing
from umd.metrics.paired import corrected, pair_rows
from umd.metrics.predictions import answers_of, images_of, same_samples
from umd.metrics.runs import Configuration, Run, configurations, read_run
from umd.metrics.seeds import Measured
from umd.protocols import FEW, FEW_MARK, FEW_NOTE


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs' tests, of one task.

    Raises:
        UserError: a run has no results, is given twice, or is of another task than the first.
    """
    runs = [read_run(path, label) for path, label in zip(paths, labels(paths), strict=True)]
    for path, run in zip(paths, runs, strict=True):
        if run.results["columns"][:3] != runs[0].results["columns"][:3]:
            raise UserError(f"'{path}' is of another task than '{paths[0]}': its results have other columns")
    return runs


def labels(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart.

    Raises:
        UserError: a run is given twice.
    """
    folders = [(run.parent if run.suffix == ".json" else run).resolve() for run in runs]
    if len(set(folders)) != len(folders):
        raise UserError("a run is given twice")
    return shortest_ends(folders)


def shortest_ends(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of different paths that tell them apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        short = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(short)) == len(short):
            break
    return short


def comparison(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run and group: run, title, and the columns of the runs' own reports."""
    return pd.DataFrame([{"run": run.label, "title": run.title, **row} for run in runs for row in run.results["rows"]])


def as_tables(of: Sequence[Configuration], width: int) -> Iterator[Table]:
    """Configurations down, groups across, in as many tables as it takes on a terminal of `width` characters.

    A cell holds the mean over seeds, with the deviation where there are several, then the interval over questions, and
    below it the one over images where that is known.
    """
    name, _, value = of[0].runs[0].results["columns"][:3]
    several = any(len(configuration.runs) > 1 for configuration in of)
    measured = {configuration: configuration.measured() for configuration in of}
    groups = list(dict.fromkeys(row[name] for one in of for run in one.runs for row in run.results["rows"]))
    # Of a metric that no run defines there is a column all the same.
    over_images = any(metric.image_low is not None for metrics in measured.values() for metric in metrics.values())
    title = f"{value.capitalize()} in per cent"
    title += f"\n{'mean ± deviation over seeds, ' if several else ''}[95 % interval over {_counted(of)}]"
    title += "\n[95 % interval over images]" if over_images else ""
    few = any(min(m.count, m.images or m.count) < FEW for metrics in measured.values() for m in metrics.values())
    title += f"\n{FEW_NOTE}" if few else ""

    def table(chosen: Sequence[str]) -> Table:
        made = Table(title=title, title_justify="left")
        made.add_column("run" if not several else "configuration (seeds)", overflow="fold")
        counts = {group: {_counts(m[group]) for m in measured.values() if group in m} for group in chosen}
        alike = all(len(found) <= 1 for found in counts.values())
        for group in chosen:
            count = next(iter(counts[group]), "(0)")
            made.add_column(f"{group}\n{count}" if alike else group, justify="right", no_wrap=True)
        for one, metrics in measured.items():
            label = f"{one.label} ({len(one.runs)})" if several else one.label
            made.add_row(label, *(_cell(metrics.get(group), alike) for group in chosen))
        return made

    return in_parts(table, groups, width)


def in_parts(table: Callable[[Sequence[str]], Table], groups: Sequence[str], width: int) -> Iterator[Table]:
    """Tables of as many groups as fit each, one at least: rich would cut the numbers off."""
    console, rest = Console(width=width), list(groups)
    while rest:
        for size in range(len(rest), 0, -1):
            made = table(rest[:size])
            needed = Measurement.get(console, console.options.update(max_width=10_000), made).maximum
            if needed <= width or size == 1:
                break
        yield made
        rest = rest[size:]


def _counted(of: Sequence[Configuration]) -> str:
    """What the results count: questions, samples, queries."""
    counted: str = of[0].runs[0].results["columns"][1]
    return counted


def _cell(metric: Measured | None, alike: bool) -> str:
    if metric is None:
        return "-"
    lines = [f"{metric.mean:.1f}" + (f" ± {metric.std:.1f}" if metric.std is not None else "")]
    lines.append(f"[{metric.low:.1f}, {metric.high:.1f}]{FEW_MARK if metric.count < FEW else ''}")
    if metric.image_low is not None:
        few = metric.images is not None and metric.images < FEW
        lines.append(f"[{metric.image_low:.1f}, {metric.image_high:.1f}]{FEW_MARK if few else ''}")
    return "\n".join(lines if alike else [*lines, _counts(metric)])


def _counts(metric: Measured) -> str:
    """How many samples are behind a metric, and how many images where that is known."""
    return f"({metric.count})" if metric.images is None else f"({metric.count}; {metric.images} images)"


def paired(of: Sequence[Configuration]) -> pd.DataFrame:
    """Each two configurations on the same samples: two rows, one over questions and one over images.

    Columns as in `umd.metrics.paired.pair_rows`, and `p_holm`. Pairs whose answers are not at hand, or of different
    samples, are left out.
    """
    rows: list[dict[str, Any]] = []
    for one, other in combinations(of, 2):
        first, second = one.predictions, other.predictions
        if first is not None and second is not None and same_samples([first[0], second[0]]):
            of_both = answers_of(first), answers_of(second), images_of(first[0])
            rows += pair_rows((one.label, other.label), *of_both, _counted(of))
    return corrected(rows)


def paired_table(pairs: pd.DataFrame) -> Table:
    """The rows of `paired` for the terminal."""
    samples = " / ".join(map(str, pairs["samples"].unique()))
    table = Table(title=f"Pairs on the same {samples} {pairs['over'].iloc[0]}", title_justify="left")
    several = len(pairs.groupby(["one", "other"])) > 1
    heads = ["difference", "over", "95 % interval", "p", *(["p (Holm)"] if several else [])]
    table.add_column("pair", overflow="fold")
    for head in heads:
        table.add_column(head, justify="left" if head == "over" else "right", no_wrap=True)
    before: tuple[str, str] | None = None
    for row in pairs.to_dict("records"):
        pair = (row["one"], row["other"])
        again, before = pair == before, pair
        cells = ["", ""] if again else [f"{row['one']} against {row['other']}", f"{row['difference']:+.1f}"]
        cells += [row["over"], f"[{row['low']:+.1f}, {row['high']:+.1f}]", _p(row["p"])]
        table.add_row(*cells, *([_p(row["p_holm"])] if several else []))
    return table


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def main(arguments: list[str]) -> None:
    """Print the tables; write the runs' rows as CSV where asked."""
    parser = ToolParser(
        prog="umd compare",
        description="Test results of several runs side by side. Runs that differ in their seeds alone are one line: "
        "mean and deviation. Runs on the same test questions are compared in pairs, question by question.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders (or their results.json)")
    parser.add_argument("--csv", type=Path, help="write the rows of the runs to this file too")
    given = parser.parse_args(arguments)
    runs = read_runs(given.runs)
    of = configurations(runs)
    console = Console()
    for table in as_tables(of, console.width):
        console.print(table)
    pairs = paired(of)
    if len(pairs):
        console.print(paired_table(pairs))
    elif len(of) > 1:
        console.print("No paired comparison: the tests left no predictions.csv of the same samples.")
    rows = comparison(runs)
    for title in dict.fromkeys(rows["title"]):
        console.print(f"{', '.join(dict.fromkeys(rows.loc[rows['title'] == title, 'run']))}: {title}")
    if given.csv:
        with writing(given.csv):
            given.csv.parent.mkdir(parents=True, exist_ok=True)
        write_whole(given.csv, rows.to_csv(index=False))
