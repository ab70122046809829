"""What `umd test` says of confidences: can they be believed, and what is gained where the least sure are withheld."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from callbacks.prediction_writer import in_split_order
from umd.files import gather_objects
from umd.metrics.calibration import (
    BINS,
    CALIBRATION_COLUMNS,
    accuracy_at,
    calibration_rows,
    reliability,
    risk_coverage,
)
from umd.protocols import AddedResults, CalibrationReport, HasTemperature

PICTURE: Final = "calibration"
_POINTS: Final = 100

_NOTE: Final = (
    f"Per cent. expected calibration error: mean gap between accuracy and mean confidence, {BINS} bins of equal width. "
    "risk coverage area: mean share of wrong answers among the surest, over all coverages; least area: that of the "
    "perfect order. accuracy at 80: of the surest 80 %."
)
_CONFIDENCE: Final = (
    "The confidence is the one in predictions.csv: of a classifier of answers the sigmoid of the chosen answer, which "
    "has no share in a sum of 1; of an answer decoder the likelihood of the whole answer."
)
BEFORE: Final = "without temperature"
"""Marks the groups whose confidences are taken without one."""


class Calibration(Callback):
    """Lays the confidence of each tested answer beside whether it is right.

    The table goes into `results.json` (`umd.protocols.AddsToResults`), with the bins and the risk-coverage curve of all
    answers. A test whose rows have no `confidence` and `correct`, or whose true answers are not known, is left alone.

    Args:
        picture: whether both are drawn, as `calibration.png` and `calibration.svg`.
    """

    def __init__(self, picture: bool = True) -> None:
        super().__init__()
        self.picture = picture
        self._rows: list[Mapping[str, Any]] = []
        self._report: CalibrationReport | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what came before."""
        self._rows, self._report = [], None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's rows."""
        if isinstance(outputs, list):
            self._rows += [row for row in outputs if {"index", "confidence", "correct"} <= row.keys()]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the ranks' rows and measure them."""
        rows = in_split_order([row for part in gather_objects(self._rows) for row in part])
        known = [row for row in rows if row["correct"] is not None]
        if known:
            temperature = pl_module.temperature if isinstance(pl_module, HasTemperature) else 1.0
            self._report = calibration_report(pd.DataFrame(known), temperature)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw it."""
        if not self.picture or self._report is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        from umd.commands.calibration_picture import draw  # matplotlib takes a second

        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        rank_zero_info("Drawn: %s", ", ".join(str(path) for path in draw(self._report, folder / PICTURE)))

    def added_results(self) -> AddedResults:
        """See `umd.protocols.AddsToResults`."""
        return {} if self._report is None else {"calibration": self._report}


def calibration_report(answers: pd.DataFrame, temperature: float = 1.0) -> CalibrationReport:
    """The table, the bins and the curve.

    Args:
        answers: as in `umd.metrics.calibration.calibration_rows`; where the temperature is not 1 with
            `untempered_confidence`, by which the same groups are measured once more.
        temperature: that of the confidences.
    """
    confidence, correct = answers["confidence"].to_numpy(np.float64), answers["correct"].to_numpy(np.bool_)
    found, risk = reliability(confidence, correct), risk_coverage(confidence, correct)
    bins = [
        {"low": 100 * place / BINS, "high": 100 * (place + 1) / BINS, "answers": int(found.count[place])}
        | {"confidence": 100 * float(found.confidence[place]), "accuracy": 100 * float(found.accuracy[place])}
        for place in range(BINS)
        if found.count[place]
    ]
    curve = [
        {"coverage": 100 * part / _POINTS, "risk": 100 * (1 - accuracy_at(risk, part / _POINTS))}
        for part in range(1, _POINTS + 1)
    ]
    rows, told = calibration_rows(answers), "No temperature was fitted."
    if temperature != 1:
        before = calibration_rows(answers.assign(confidence=answers["untempered_confidence"]))
        rows += [{**row, "group": f"{row['group']}, {BEFORE}"} for row in before]
        told = f"Logits are divided by the temperature {temperature:.2f}, which was fitted on validation."
    return CalibrationReport(
        title="Calibration: what confidences are worth",
        notes=[_NOTE, f"{_CONFIDENCE} {told}"],
        columns=list(CALIBRATION_COLUMNS),
        rows=rows,
        temperature=temperature,
        bins=bins,
        curve=curve,
    )
