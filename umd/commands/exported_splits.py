"""`umd data --export_split`: the splits of every protocol as files of ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.base import ImageTextDataModule
from datamodules.exported_splits import MANIFEST, exported
from umd.commands.audit import questions
from umd.files import write_whole, writing


def write_splits(given: ImageTextDataModule[Any], folder: Path, console: Console) -> None:
    """Write the files, and print what is in each.

    Raises:
        UserError: It is no data set of questions, its annotations are not there, or the folder cannot be written.
    """
    texts, refused = exported(questions(given, "--export_split"))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / name, text)
    table = Table(title=f"{given.title}: written to {folder}, with {MANIFEST}", title_justify="left")
    for head in ("file", "rows", "images", "how it was made"):
        table.add_column(head, justify="right" if head in ("rows", "images") else "left", overflow="fold")
    for name, facts in json.loads(texts[MANIFEST])["files"].items():
        table.add_row(name, f"{facts['rows']:,}", f"{facts['images']:,}", facts["how"])
    console.print(table)
    for protocol, why in refused.items():
        console.print(f"protocol {protocol}: none, {why}")
