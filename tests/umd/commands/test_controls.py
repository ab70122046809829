"""`umd test --controls`: models that read one thing alone are found out, and the test itself stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from umd.commands.train import run
from umd.files import UserError

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]


def controlled(run_folder: Path, runs: Path, *options: str) -> Path:
    best = run_folder / "checkpoints" / "best.ckpt"
    whole = "--trainer.limit_test_batches=1.0"
    run(["test", "--controls", f"--ckpt_path={best}", f"--runs={runs}", whole, *options, *QUIET])
    return next(runs.rglob("results.json")).parent


def by_control(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["control"]: row for row in json.loads((folder / "results.json").read_text())["controls"]["rows"]}


def test_a_model_that_reads_the_text_alone_answers_the_same_whatever_is_shown(
    classifier_run: Path, tmp_path: Path
) -> None:
    rows = by_control(controlled(classifier_run, tmp_path, "--model.inputs=text"))
    for control in ("blank image", "noise", "other image"):
        assert rows[control]["changed"] == 0 and rows[control]["accuracy"] == rows[control]["as_asked"]


def test_a_model_that_reads_the_image_alone_answers_the_same_however_it_is_asked(
    classifier_run: Path, tmp_path: Path
) -> None:
    rows = by_control(controlled(classifier_run, tmp_path, "--model.inputs=image"))
    for control in ("shuffled words", "reworded twin"):
        assert rows[control]["changed"] == 0 and rows[control]["accuracy"] == rows[control]["as_asked"]
    assert 0 < rows["reworded twin"]["questions"] < rows["noise"]["questions"]


def test_the_blank_image_is_that_of_the_text_only_control_and_the_test_stays_as_it_is(
    classifier_run: Path, tmp_path: Path
) -> None:
    best, whole = classifier_run / "checkpoints" / "best.ckpt", "--trainer.limit_test_batches=1.0"
    run(["test", f"--ckpt_path={best}", f"--runs={tmp_path / 'plain'}", whole, *QUIET])
    run(["test", f"--ckpt_path={best}", f"--runs={tmp_path / 'text'}", "--model.inputs=text", whole, *QUIET])
    folder = controlled(classifier_run, tmp_path / "controls")
    plain, text = (next((tmp_path / name).rglob("results.json")).parent for name in ("plain", "text"))
    for file in ("results.csv", "predictions.csv"):
        assert (folder / file).read_bytes() == (plain / file).read_bytes()
    told, without = (json.loads((place / "results.json").read_text()) for place in (folder, plain))
    del told["controls"]
    assert told == without
    table = pd.read_csv(folder / "controls.csv", keep_default_na=False)
    blank = table[table["control"] == "blank image"].reset_index()
    text_only = pd.read_csv(text / "predictions.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(blank[["answer", "confidence"]], text_only[["answer", "confidence"]])


def test_a_written_answer_is_asked_for_otherwise_too_and_a_part_is_that_part(
    generator_run: Path, tmp_path: Path
) -> None:
    folder = controlled(generator_run, tmp_path, "--trainer.limit_test_batches=2", "--data.batch_size=3")
    rows = by_control(folder)
    assert rows["noise"]["questions"] == 6
    assert {"blank image", "noise", "other image", "shuffled words"} <= rows.keys()


def test_a_test_without_controls_goes_beside_one_with_them(classifier_run: Path, tmp_path: Path) -> None:
    folder = controlled(classifier_run, tmp_path)
    best = classifier_run / "checkpoints" / "best.ckpt"
    whole = "--trainer.limit_test_batches=1.0"
    run(["test", f"--ckpt_path={best}", f"--runs={tmp_path}", whole, *QUIET])
    assert by_control(folder)
    assert "controls" not in json.loads((folder.parent / "test_without_controls" / "results.json").read_text())


def test_a_stage_that_answers_no_questions_is_refused(classification_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--controls asks questions otherwise; .*Classification has none"):
        controlled(classification_run, tmp_path)
