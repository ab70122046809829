"""`umd test` says what its confidences are worth: the numbers are those of `predictions.csv`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from umd.commands.train import run
from umd.metrics.calibration import expected_calibration_error

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]


@pytest.mark.parametrize("trained", ["classifier_run", "generator_run", "classification_run"])
def test_the_numbers_are_those_of_the_predictions(trained: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    best = request.getfixturevalue(trained) / "checkpoints" / "best.ckpt"
    run(["test", f"--ckpt_path={best}", f"--runs={tmp_path}", *QUIET])
    folder = next(tmp_path.rglob("results.json")).parent
    found = json.loads((folder / "results.json").read_text())["calibration"]
    whole = next(row for row in found["rows"] if row["group"] in ("overall", "accuracy"))
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    correct, confidence = table["correct"].to_numpy(bool), table["confidence"].to_numpy(float)
    assert whole["questions"] == len(table) == sum(one["answers"] for one in found["bins"])
    assert whole["accuracy"] == pytest.approx(100 * correct.mean())
    error = sum(one["answers"] * abs(one["accuracy"] - one["confidence"]) for one in found["bins"]) / len(table)
    assert whole["expected_calibration_error"] == pytest.approx(error)
    assert error == pytest.approx(100 * expected_calibration_error(confidence, correct))
    surest = correct[confidence.argsort()[::-1]][: max(1, round(0.5 * len(table)))]
    if len(set(confidence)) == len(confidence):
        assert found["curve"][49] == {"coverage": 50, "risk": pytest.approx(100 * (1 - surest.mean()))}
    assert found["curve"][-1]["risk"] == pytest.approx(100 * (1 - correct.mean()))
    assert {"calibration.png", "calibration.svg"} <= {path.name for path in folder.iterdir()}


def test_where_nothing_is_chosen_nothing_is_said(retrieval_run: Path, tmp_path: Path) -> None:
    run(["test", f"--ckpt_path={retrieval_run / 'checkpoints' / 'best.ckpt'}", f"--runs={tmp_path}", *QUIET])
    folder = next(tmp_path.rglob("results.json")).parent
    assert "calibration" not in json.loads((folder / "results.json").read_text())
    assert not list(folder.glob("calibration.*"))
