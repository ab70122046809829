"""`umd compare`: the test results of several runs in one table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from umd.files import UserError, write_whole, writing


def read_results(run: Path) -> dict[str, Any]:
    """The report that a run's test wrote.

    Raises:
        UserError: the run has no test results.
    """
    path = run if run.suffix == ".json" else run / "results.json"
    if not run.exists():
        raise UserError(f"there is no run '{run}'")
    if not path.is_file():
        raise UserError(f"'{run}' has no results.json: test it first (umd test --ckpt_path ...)")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def comparison(runs: list[Path]) -> pd.DataFrame:
    """One row a run and group: run, title, and the columns of the runs' own reports.

    Raises:
        UserError: the runs are of different tasks.
    """
    rows: list[dict[str, Any]] = []
    columns: list[str] = []
    for run, label in zip(runs, labels(runs), strict=True):
        report = read_results(run)
        columns = columns or report["columns"]
        if report["columns"] != columns:
            raise UserError(f"'{run}' is of another task than '{runs[0]}': its results have other columns")
        rows += [{"run": label, "title": report["title"], **row} for row in report["rows"]]
    return pd.DataFrame(rows)


def labels(runs: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart.

    Raises:
        UserError: a run is given twice.
    """
    folders = [(run.parent if run.suffix == ".json" else run).resolve() for run in runs]
    if len(set(folders)) != len(folders):
        raise UserError("a run is given twice")
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        short = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(short)) == len(short):
            break
    return short


def as_table(rows: pd.DataFrame) -> Table:
    """Runs down, groups across: the reports' third column with its interval, and how many it is measured on."""
    group_column, count_column, value_column = rows.columns[2:5]
    groups = list(dict.fromkeys(rows[group_column]))
    table = Table(title=f"{value_column.capitalize()} in per cent [95 % interval]", title_justify="left")
    table.add_column("run", overflow="fold")
    alike = rows.groupby(group_column)[count_column].nunique().max() == 1
    for group in groups:
        count = rows.loc[rows[group_column] == group, count_column].iloc[0]
        table.add_column(f"{group}\n({count})" if alike else group, justify="right", no_wrap=True)
    for run, part in rows.groupby("run", sort=False):
        cells = []
        for group in groups:
            found = part[(part[group_column] == group) & part[value_column].notna()]
            if found.empty:
                cells.append("-")
                continue
            row = found.iloc[0]
            cell = f"{row[value_column]:.1f}\n[{row['interval_low']:.1f}, {row['interval_high']:.1f}]"
            cells.append(cell if alike else f"{cell}\n({row[count_column]})")
        table.add_row(str(run), *cells)
    return table


def main(arguments: list[str]) -> None:
    """Print the table; write it as CSV where asked."""
    parser = argparse.ArgumentParser(prog="umd compare", description="Test results of several runs in one table.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders (or their results.json)")
    parser.add_argument("--csv", type=Path, help="write the rows to this file too")
    given = parser.parse_args(arguments)
    rows = comparison(given.runs)
    console = Console()
    console.print(as_table(rows))
    for title in dict.fromkeys(rows["title"]):
        console.print(f"{', '.join(dict.fromkeys(rows.loc[rows['title'] == title, 'run']))}: {title}")
    if given.csv:
        with writing(given.csv):
            given.csv.parent.mkdir(parents=True, exist_ok=True)
        write_whole(given.csv, rows.to_csv(index=False))
