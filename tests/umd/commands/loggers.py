"""A logger as other projects write them: it puts a file where it is told to, else into the working directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class Diary(Logger):
    def __init__(self, save_dir: str = ".", title: str = "diary") -> None:
        super().__init__()
        self.folder, self.title = Path(save_dir), title

    @property
    def name(self) -> str:
        return "lightning_logs"

    @property
    def version(self) -> int:
        return 0

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with (self.folder / f"{self.title}.txt").open("a") as file:
            file.write(f"{step} {dict(metrics)}\n")

    def log_hyperparams(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        pass
