"""The parts of a model in a table, before a training begins."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from rich import box
from rich.console import Console
from rich.table import Table

_SHOWN = ("Name", "Type", "Params")


class ModelTable(ModelSummary):
    """Lightning's summary without what it cannot know here: without an example input it counts 0 FLOPs everywhere."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *_: Any,  # noqa: ANN401 - what Lightning counts besides
        **__: Any,  # noqa: ANN401
    ) -> None:
        """Print each part with its parameters, and how many of all are trained."""
        columns = {name: values for name, values in summary_data if name in _SHOWN}
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            table.add_column(name.lower(), justify="right" if name == "Params" else "left")
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        console = Console()
        console.print(table)
        total, trained = (get_human_readable_count(n).strip() for n in (total_parameters, trainable_parameters))
        console.print(f"{total} parameters, {trained} of them trained")
