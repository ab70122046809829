"""The table at the end of a test: on the terminal for the eye, in the run folder as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from callbacks.provenance import tested_checkpoint, tested_data, tested_part, versions
from umd.files import UserError, write_whole
from umd.protocols import (
    FEW,
    FEW_MARK,
    FEW_NOTE,
    RESULTS_SCHEMA,
    AddedResults,
    AddsToResults,
    HasLineage,
    HasReport,
    Report,
    Results,
)

_KEYS: Final = ("title", "notes", "columns", "rows")


def table_cells(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The table as a reader wants it.

    Two columns `x_low` and `x_high` become one, `x`, with "[low, high]", and `FEW_MARK` behind it where fewer than
    `FEW` samples (the second column) or `images` stand behind it; underscores become blanks; what is None reads "-".
    Numbers have one decimal, and two in a column that stays within -1..1.

    Args:
        columns: names of the columns.
        rows: the rows, each a value for every column.

    Returns:
        The header of each column, and for each row the text of each cell.
    """
    headers: list[str] = []
    texts: list[list[str]] = []
    for name in columns:
        stem = name.removesuffix("_low").removesuffix("_high")
        if stem != name and f"{stem}_low" in columns and f"{stem}_high" in columns:
            if name.endswith("_low"):
                headers.append(stem.replace("_", " "))
                of = "images" if stem == "image_interval" else columns[1]
                few = [_is_few(row.get(of)) for row in rows]
                texts.append(_interval_texts([(row[name], row[f"{stem}_high"]) for row in rows], few))
        else:
            headers.append(name.replace("_", " "))
            texts.append(_texts([row[name] for row in rows]))
    return headers, [list(row) for row in zip(*texts, strict=True)]


def results_view(report: Mapping[str, Any], width: int) -> RenderableType:
    """The report for a terminal of `width` characters: a table, or where that is too wide, a list per row.

    A report without rows is its title and its notes. Before it becomes a list, a table folds its headers.
    """
    notes = [Text(str(note), style="dim") for note in report["notes"]]
    if not report["rows"]:
        return Group(Text(str(report["title"]), style="bold"), *notes)
    headers, cells = table_cells(report["columns"], report["rows"])
    if any(text.endswith(f"]{FEW_MARK}") for row in cells for text in row):
        notes.append(Text(FEW_NOTE, style="dim"))
    tables = (_table(heads, cells) for heads in (headers, _folded(headers, cells)))
    body: list[RenderableType] = []
    body += [Group(table, Text("")) for table in tables if _fits(table, width)][:1]
    # What rich does to a table without room is to cut the numbers off; a list of "name value" stays readable.
    if not body:
        for row in cells:
            grid = Table.grid(padding=(0, 2))
            for header, text in zip(headers, row, strict=True):
                grid.add_row(Text(header), Text(text))
            body += [grid, Text("")]
    return Group(Text(str(report["title"]), style="bold"), *body, *notes)


def _table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for column, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if column else "left", vertical="bottom")
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _folded(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """The headers, broken between words where their column is narrower."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if cells else [1] * len(headers)
    return [
        textwrap.fill(header, max(width, *map(len, header.split())), break_on_hyphens=False)
        for header, width in zip(headers, widths, strict=True)
    ]


def _fits(table: Table, width: int) -> bool:
    console = Console(width=width)
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= width


class ResultsTable(Callback):
    """Shows a module's test report, and writes it as `<name>.json` and `<name>.csv` into the run folder.

    The run folder is the trainer's `default_root_dir`. The JSON holds what `umd.protocols.Results` documents, the
    CSV the rows alone, both with all digits; numbers that are not finite are written as undefined (null, empty).
    Each file is replaced in one move; where that was another checkpoint's, or another test's, a line says so. In a
    `fast_dev_run` the table is shown and nothing is written. A test of a part of the split says so in its title.

    Args:
        name: name of the two files without its ending.

    Attributes:
        paths: the files that the last test wrote: the JSON and the CSV.

    Raises:
        UserError: `name` is empty or not a bare file name.
    """

    def __init__(self, name: str = "results") -> None:
        super().__init__()
        if not name or Path(name).name != name:
            raise UserError(f"name: must be a file name without a folder, got {name!r}")
        self.name = name
        self.paths: tuple[Path, ...] = ()
        self._position = (0, 0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that keeps no report.

        Raises:
            UserError: the module does not meet `umd.protocols.HasReport`.
        """
        _reporting(pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember how far the training of what is tested had come."""
        self._position = (checkpoint["global_step"], checkpoint["epoch"])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report and show it.

        Raises:
            UserError: the report lacks a part, or a row has other keys than the columns.
        """
        # Asked for on every rank, so that a module may exchange between ranks in its report.
        report = _checked(_reporting(pl_module).test_report(), pl_module)
        limits = tested_part(trainer)
        if limits is not None:
            whole = "" if limits["of"] is None else f" of {limits['of']}"
            report["title"] += f", partial: {limits['batches']}{whole} batches"
        if not trainer.is_global_zero:
            return
        added = _added(trainer)
        fast_dev_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if not fast_dev_run:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.paths = (folder / f"{self.name}.json", folder / f"{self.name}.csv")
            lineage = list(pl_module.lineage()) if isinstance(pl_module, HasLineage) else []
            results = Results(
                schema=RESULTS_SCHEMA,
                **report,
                checkpoint=tested_checkpoint(trainer.ckpt_path, folder, *self._position),
                training=lineage[0] if lineage else None,
                init_from=lineage[1:],
                test=tested_data(getattr(trainer, "datamodule", None)),
                limits=limits,
                versions=versions(),
                **added,
            )
            if self.paths[0].is_file():
                _say_what_is_replaced(self.paths[0], results)
            write_whole(self.paths[0], json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            write_whole(self.paths[1], _as_csv(report["columns"], report["rows"]))
        console = Console()
        console.print(results_view(report, console.width))
        if "calibration" in added:
            console.print(results_view(added["calibration"], console.width))
        if "controls" in added:
            console.print(results_view(added["controls"], console.width))
        if not fast_dev_run and report["rows"]:
            rank_zero_info("Results written to %s and %s", *self.paths)
        elif not fast_dev_run:  # the report's notes say why
            rank_zero_info("What was tested is written to %s", self.paths[0])


def _say_what_is_replaced(path: Path, results: Results) -> None:
    """Log where the results that lie there are of another checkpoint or another test."""
    earlier = json.loads(path.read_text(encoding="utf-8"))
    told = ("checkpoint", "test", "limits")
    if "schema" in earlier and any(earlier[part] != results.get(part) for part in told):
        tested = earlier["checkpoint"]["path"] if earlier["checkpoint"] else "weights in no file"
        rank_zero_info("%s is replaced: it held a test of %s: %s", path, tested, earlier["title"])


def _added(trainer: Trainer) -> AddedResults:
    """The tables of the callbacks that have any."""
    added = AddedResults()
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, AddsToResults):
            added |= callback.added_results()
    return added


def _reporting(module: LightningModule) -> HasReport:
    if not isinstance(module, HasReport):
        raise UserError(
            f"ResultsTable: {type(module).__name__} has no method test_report() (umd.protocols.HasReport). "
            "Add one to the module, or take ResultsTable out of trainer.callbacks."
        )
    return module


def _checked(report: Mapping[str, Any], module: LightningModule) -> Report:
    """The report with undefined numbers as None, once its parts are known to be there."""
    source = f"{type(module).__name__}.test_report()"
    if missing := [key for key in _KEYS if key not in report]:
        raise UserError(f"{source}: lacks {', '.join(missing)}; it must have {', '.join(_KEYS)}")
    columns = list(report["columns"])
    for number, row in enumerate([*report["rows"], *report.get("breakdown", ())]):
        if set(row) != set(columns):
            raise UserError(f"{source}: row {number} has the keys {sorted(row)}, the columns are {columns}")

    def finite(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{column: _finite(row[column]) for column in columns} for row in rows]

    checked = Report(title=report["title"], notes=list(report["notes"]), columns=columns, rows=finite(report["rows"]))
    if report.get("breakdown"):
        checked["breakdown"] = finite(report["breakdown"])
    return checked


def _finite(value: Any) -> Any:  # noqa: ANN401
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _texts(values: Sequence[Any]) -> list[str]:
    small = all(abs(value) <= 1 for value in values if isinstance(value, float))
    number = "{:.2f}" if small else "{:.1f}"
    return [
        "-" if value is None else number.format(value) if isinstance(value, float) else str(value) for value in values
    ]


def _interval_texts(ends: Sequence[tuple[Any, Any]], few: Sequence[bool]) -> list[str]:
    texts = _texts([end for pair in ends for end in pair])
    pairs = zip(texts[::2], texts[1::2], few, strict=True)
    return [
        "-" if "-" in (low, high) else f"[{low}, {high}]{FEW_MARK if marked else ''}" for low, high, marked in pairs
    ]


def _is_few(count: object) -> bool:
    return isinstance(count, int) and count < FEW


def _as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
