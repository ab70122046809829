"""`umd test --controls`: the test's questions asked otherwise, to see what the answers owe to image and wording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from callbacks.prediction_writer import as_csv, in_split_order
from datamodules.vqa import VQADataModule
from umd.files import UserError, gather_objects, write_whole
from umd.metrics.grounding import CONTROL_COLUMNS, control_rows
from umd.protocols import AddedResults, Report

Row = Mapping[str, Any]

CONTROLS_FILE = "controls.csv"
_KEPT = ("index", "question_id", "image", "question", "answer", "confidence", "ground_truth", "correct")

_MEANING = {
    "blank image": "uniformly grey, as for a text-only control",
    "noise": "pixels drawn uniformly",
    "other image": "of another question of the split, drawn",
    "shuffled words": "the question's own",
    "reworded twin": "the question's framed form, which the data set has among its training rows, with its own answer; "
    "a model that was trained under 'paper' has seen it",
}


class Controls(Callback):
    """Has the stage answer the tested questions again under each control, once the test has seen all of them.

    The questions, their order and their batches are those that this rank's test has seen; the answers are those of the
    stage's `predict_step`, which are the test's. Nothing of it enters the test's own numbers: the table goes into
    `results.json` beside them (`umd.protocols.AddsToResults`), the answers into `controls.csv`.

    Raises:
        UserError: the stage, or the data, is not for question answering.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked: list[Row] = []
        self._report: Report | None = None
        self._rows: list[Row] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what answers no questions."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, VQADataModule):
            raise UserError(f"--controls asks questions otherwise; {type(data).__name__} has none")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what came before."""
        self._asked, self._report, self._rows = [], None, []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what is answered to the questions as they are."""
        self._asked += outputs

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask again under each control."""
        data: VQADataModule = trainer.datamodule  # type: ignore[attr-defined]
        places = [int(row["index"]) for row in self._asked]
        asked = _joined(self._asked)
        found: dict[str, list[Row]] = {}
        changes = data.controls(blank_image(pl_module, data.image_size))
        for name, change in changes.items():
            rank_zero_info("control: %s", name)
            found[name] = _joined(_answered(trainer, pl_module, data.changed_dataloader(change, places)))
        found = {name: rows for name, rows in found.items() if rows}
        frames = {name: pd.DataFrame(rows).set_index("index") for name, rows in found.items()}
        self._report = Report(
            title="Controls, not results: the same questions asked otherwise",
            notes=_notes(found),
            columns=list(CONTROL_COLUMNS),
            rows=control_rows(pd.DataFrame(asked).set_index("index"), frames),
        )
        self._rows = [
            {"index": row["index"], "control": name, **{key: row[key] for key in _KEPT}}
            for name, rows in found.items()
            for row in rows
        ]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write each answer."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = Path(trainer.default_root_dir) / CONTROLS_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, as_csv(self._rows))
            rank_zero_info("Answers under controls written to %s", path)

    def added_results(self) -> AddedResults:
        """See `umd.protocols.AddsToResults`."""
        return {} if self._report is None else {"controls": self._report}


def blank_image(module: LightningModule, size: int) -> Tensor:
    """(3, size, size) float in 0..1: what the stage's encoder normalises to zero, as a text-only control sees it."""
    mean: Tensor = module.encoder.vision.mean  # type: ignore[union-attr, assignment]
    return mean.detach().float().cpu().view(3, 1, 1).repeat(1, size, size)


def _answered(trainer: Trainer, module: LightningModule, loader: Iterable[Any]) -> list[Row]:
    rows: list[Row] = []
    for number, batch in enumerate(loader):
        there = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        with torch.inference_mode(), trainer.precision_plugin.predict_step_context():
            rows += module.predict_step(there, number)
    return rows


def _joined(rows: list[Row]) -> list[Row]:
    return in_split_order([row for part in gather_objects(rows) for row in part])


def _notes(found: Mapping[str, object]) -> list[str]:
    notes = [f"{name}: {_MEANING[name]}." for name in found]
    left_out = [name for name in _MEANING if name not in found]
    if left_out:
        notes.append(f"Left out, since the tested questions do not allow it: {', '.join(left_out)}.")
    return [
        *notes,
        "Per cent. as asked: accuracy on the same questions as they are; both right: as asked and under the control; "
        "changed: share of questions with another answer than as asked. Intervals: 95 % bootstrap, over questions and "
        "over images.",
    ]
