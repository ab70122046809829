"""The command line: a checkpoint is enough, what is typed wins, nothing is lost, mistakes end in one clear line."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from datamodules import VQARAD
from datamodules.vqa_rad import SINGLE_FILE
from tests.configs.test_configs import CONFIGS, SHORT, TINY, TINY_UMD, fit, step
from tests.datamodules.samples import write_vqa
from umd.cli import main
from umd.commands.compare import comparison, read_runs
from umd.commands.train import run
from umd.files import UserError

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of a VQA training of one step, which ended with a test of the whole test split."""
    folder = tmp_path_factory.mktemp("cli")
    data = [f"--data.root={folder / 'data'}", "--data.size=12", "--trainer.limit_test_batches=1.0"]
    fit(folder / "runs", ["vqa.yaml"], *data)
    return folder / "runs"


def best(runs: Path) -> Path:
    return runs / "vqa" / "default" / "checkpoints" / "best.ckpt"


def rows(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text())["rows"]
    return found


def test_a_checkpoint_alone_gives_the_numbers_of_the_fits_own_test(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="umd"):
        overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data: {init_args: {text_length: 24}}")
    given = [f"--runs={tmp_path}", f"--config={overlay}", "--data.batch_size=3"]
    run(["test", f"--ckpt_path={best(trained)}", *given, *QUIET])
    own = rows(trained / "vqa" / "default" / "results.json")
    assert rows(tmp_path / "vqa" / "default" / "test" / "results.json") == own
    assert sum(1 for row in own if row["questions"]) == len(own)
    assert "given instead: data.init_args.batch_size: 3 (checkpoint: 4)" in caplog.text
    assert "given instead: data.init_args.text_length: 24 (checkpoint: 32)" in caplog.text
    assert "umd.VQAClassifier" in caplog.text


def test_predict_writes_each_test_question_once(trained: Path, tmp_path: Path) -> None:
    run(["predict", f"--ckpt_path={best(trained)}", f"--runs={tmp_path}", *QUIET])
    table = pd.read_csv(tmp_path / "vqa" / "default" / "predict" / "predictions.csv", keep_default_na=False)
    overall = next(row for row in rows(trained / "vqa" / "default" / "results.json") if row["group"] == "overall")
    assert len(table) == overall["questions"]
    assert table["question_id"].is_unique
    right = (table["answer"] == table["ground_truth"]).mean() * 100
    assert right == pytest.approx(overall["accuracy"], abs=1e-3)


def test_a_fit_and_a_test_leave_each_questions_outcome(trained: Path, tmp_path: Path) -> None:
    run(["test", f"--ckpt_path={best(trained)}", f"--runs={tmp_path}", *QUIET])
    own = trained / "vqa" / "default"
    table = pd.read_csv(own / "predictions.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "vqa" / "default" / "test" / "predictions.csv", keep_default_na=False), table
    )
    groups = {"open": ~table["closed"], "closed": table["closed"], "overall": table["closed"] | True}
    groups["twin-free"] = ~table["has_twin"]
    for row in rows(own / "results.json"):
        chosen = table["correct"][groups[str(row["group"])]]
        assert (row["questions"], row["accuracy"]) == (len(chosen), 100 * chosen.sum() / len(chosen))
    assert ((table["answer"] == table["ground_truth"]) == table["correct"]).all()
    assert table["question_type"].ne("").all()


def test_a_training_never_mixes_with_an_earlier_one(trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*.ckpt")}
    with pytest.raises(UserError, match=r"holds an earlier training.*--name.*--ckpt_path.*--overwrite"):
        fit(trained, ["vqa.yaml"], "--data.size=12")
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*.ckpt")} == before


def test_a_training_without_checkpoints_is_held_by_its_results(tmp_path: Path) -> None:
    earlier = tmp_path / "vqa" / "default" / "results.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    with pytest.raises(UserError, match=r"holds an earlier training\. .* --name ANOTHER or replace it"):
        fit(tmp_path, ["vqa.yaml"], "--data.size=12")
    assert earlier.read_text() == "{}"


def test_overwrite_deletes_nothing_before_all_that_is_given_proves_sound(trained: Path) -> None:
    last = best(trained).with_name("last.ckpt")
    with pytest.raises(ValueError, match="Did you mean 'tiny_vit'"):
        fit(trained, ["vqa.yaml"], "--data.size=12", "--overwrite=true", "--model.encoder.vision=tiny_vti")
    with pytest.raises(ValueError, match="would delete"):
        fit(trained, ["vqa.yaml"], "--data.size=12", "--overwrite=true", f"--model.init_from={last}")
    assert last.is_file()


def test_a_training_that_goes_on_elsewhere_respects_what_is_there(trained: Path) -> None:
    last = best(trained).with_name("last.ckpt")
    with pytest.raises(UserError, match="holds an earlier training"):
        run(["fit", f"--ckpt_path={last}", f"--runs={trained}", "--name=default"])


@pytest.mark.parametrize("key", ["image_size", "data.init_args.tokenizer"])
def test_what_follows_from_the_model_is_not_typed_twice(key: str) -> None:
    with pytest.raises(ValueError, match="follows from the model"):
        run(["fit", f"--data.{key.removeprefix('data.')}=48"])


def test_a_training_goes_on_from_its_checkpoint_alone(trained: Path, tmp_path: Path) -> None:
    last = best(trained).with_name("last.ckpt")
    longer = ["--trainer.max_epochs=3", "--trainer.max_steps=-1", "--test_after_fit=false"]
    run(["fit", f"--ckpt_path={last}", f"--runs={tmp_path}", *longer])
    gone_on = next(tmp_path.rglob("last.ckpt"))
    assert step(gone_on) == 3
    callbacks = torch.load(gone_on, weights_only=True)["umd"]["trainer"]["callbacks"]
    assert {"callbacks.WeightPerturbation", "callbacks.ModalityCoordination"} <= {c["class_path"] for c in callbacks}


def fit_again(trained: Path) -> list[str]:
    """The command of a training on the same data."""
    data = [f"--data.root={trained.parent / 'data'}", "--data.size=12"]
    return ["fit", f"--config={CONFIGS / 'vqa.yaml'}", *TINY, *TINY_UMD, *SHORT, *data]


def test_a_test_of_untrained_weights_says_so(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run([*fit_again(trained), f"--runs={tmp_path}", "--trainer.max_epochs=0"])
    assert "not one step was trained" in caplog.text


def test_a_test_of_other_weights_than_the_best_says_so(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run([*fit_again(trained), f"--runs={tmp_path}", "--trainer.limit_val_batches=0"])
    assert "no validation has chosen a best checkpoint: the test is of the weights at the end" in caplog.text


def test_each_epoch_is_a_line_in_a_log(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = ["--trainer.max_steps=-1", "--trainer.max_epochs=2", "--test_after_fit=false"]
    with caplog.at_level(logging.INFO):
        run([*fit_again(trained), f"--runs={tmp_path}", *long])
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert [line.partition(",")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    logged = tmp_path / "vqa" / "default" / "csv" / "version_0" / "metrics.csv"
    with logged.open(newline="") as file:
        measured = [float(row["validation/loss"]) for row in csv.DictReader(file) if row["validation/loss"]]
    assert [f"validation/loss {loss:.4g}" in line for loss, line in zip(measured, lines, strict=True)] == [True, True]


def test_results_lie_beside_the_checkpoint(trained: Path) -> None:
    run(["test", f"--ckpt_path={best(trained)}", *QUIET])
    assert (trained / "vqa" / "default" / "test" / "results.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "--ckpt_path", "nowhere.ckpt"], "there is no checkpoint 'nowhere.ckpt'"),
        (["compare", "nowhere"], "there is no run 'nowhere'"),
        (["compare", str(CONFIGS)], "has no results.json: test it first"),
        (["test"], "umd test needs a trained model: --ckpt_path FILE"),
        (
            ["fit", f"--config={CONFIGS / 'vqa.yaml'}", "--model.init_from=nowhere.ckpt"],
            "there is no file 'nowhere.ckpt'",
        ),
        *(
            (
                ["fit", f"--config={CONFIGS / 'vqa.yaml'}", f"--name={name}"],
                f"--name {name}: it must be that of a folder inside",
            )
            for name in ("../../out", "/out", "a/../../b", ".")
        ),
        (["nonsense"], "there is no command 'nonsense'; there are fit, validate, test, predict, answer, "),
    ],
)
def test_a_mistake_ends_in_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_an_unknown_encoder_is_named_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parents[3] / "configs" / "vqa.yaml"
    with pytest.raises(SystemExit):
        main(["fit", f"--config={config}", f"--runs={tmp_path}", "--model.encoder.vision=tiny_vti"])
    assert "Did you mean 'tiny_vit'?" in capsys.readouterr().err


def test_help_starts_without_torch() -> None:
    code = "import sys; from umd.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("fit", "validate", "test", "predict", "compare", "convert"):
        assert f"  {command} " in shown.stdout


def test_runs_of_one_name_stay_apart_in_a_comparison(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "vqa" / "default"
    other.mkdir(parents=True)
    own = json.loads((trained / "vqa" / "default" / "results.json").read_text())
    (other / "results.json").write_text(json.dumps(own | {"rows": [row | {"accuracy": 99.9} for row in own["rows"]]}))
    found = comparison(read_runs([trained / "vqa" / "default", other / "results.json"]))
    assert found["run"].nunique() == 2
    assert (found["accuracy"] == 99.9).sum() == len(own["rows"])


# Checkpoints are data


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["UMD_TEST_TRACE"],)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in error, error
    return error


@pytest.mark.parametrize("way", ["fit --ckpt_path", "test --ckpt_path", "fit --model.init_from"])
def test_no_way_of_reading_a_checkpoint_runs_code(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, path = tmp_path / "executed", tmp_path / "unsafe.ckpt"
    monkeypatch.setenv("UMD_TEST_TRACE", str(trace))
    torch.save({"state_dict": {}, "umd": {"model": {}}, "optimizer_states": Malice()}, path)
    command, option = way.split()
    given = [f"--config={CONFIGS / 'vqa.yaml'}", *TINY, *TINY_UMD, *SHORT, f"--runs={tmp_path / 'runs'}"]
    data = [f"--data.root={tmp_path / 'data'}", "--data.size=12"]
    assert "could run code" in refused([command, *given, *data, f"{option}={path}"], capsys)
    assert not trace.exists()
    assert not (tmp_path / "runs").exists()  # a start that failed leaves nothing


def changed(trained: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a training's last checkpoint with a change in it."""
    content = torch.load(best(trained).with_name("last.ckpt"), weights_only=True)
    change(content)
    torch.save(content, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


def test_a_checkpoint_names_no_code(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line makes objects of class paths, and functions of some of their settings."""
    callback = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": "os.abort"}}
    path = changed(trained, tmp_path, lambda content: content["umd"]["trainer"]["callbacks"].append(callback))
    error = refused(["fit", f"--ckpt_path={path}", f"--runs={tmp_path}"], capsys)
    assert "asks for the class 'lightning.pytorch.callbacks.LambdaCallback'" in error


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (
            None,
            ["--config", str(CONFIGS / "pretrain.yaml")],
            "is a checkpoint of vqa (umd.VQAClassifier), ",
        ),
        (None, ["--model.encoder.fusion_width=24"], "is (16,) there and (24,) here"),
        (lambda content: content.pop("optimizer_states"), [], "holds no optimizer state"),
        (
            lambda content: content["optimizer_states"][0]["param_groups"].pop(),
            [],
            "what is trained, or in which groups",
        ),
        (lambda content: content["state_dict"].popitem(), [], "is missing there"),
    ],
    ids=["stage", "architecture", "weights alone", "optimizer", "missing"],
)
def test_what_does_not_fit_is_said(
    change: Callable[[dict[str, Any]], Any] | None,
    more: list[str],
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = changed(trained, tmp_path, change or (lambda content: None))
    error = refused(["fit", f"--ckpt_path={path}", f"--runs={tmp_path / 'runs'}", *more], capsys)
    assert message in error and "changed.ckpt" in error
    assert not (tmp_path / "runs").exists()


def test_a_wrong_start_keeps_what_it_was_to_replace(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The root is looked at only when the training starts, after the folder was prepared."""
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs)
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path.name != ".lock"}
    last = best(runs).with_name("last.ckpt")
    given = [
        f"--config={CONFIGS / 'vqa.yaml'}",
        f"--config={CONFIGS / 'data' / 'slake.yaml'}",
        *TINY,
        *TINY_UMD,
        *SHORT,
    ]
    for how, said in (
        (["fit", *given, f"--runs={runs}", "--overwrite=true"], "nowhere for"),
        (["fit", f"--ckpt_path={last}"], "goes on with that alone"),
    ):
        assert said in refused([*how, *given[:2], f"--data.root={tmp_path / 'nowhere'}"], capsys)
        kept = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path.name != ".lock"}
        assert kept == before


def test_any_split_of_any_data_is_predicted_and_no_prediction_replaces_another(trained: Path, tmp_path: Path) -> None:
    other = write_vqa(tmp_path / "other")
    given = [f"--ckpt_path={best(trained)}", f"--runs={tmp_path}", *QUIET]
    for more in ([], ["--split=validation"], ["--split=train", "--data=VQARAD", f"--data.root={other}"]):
        for _ in range(2):  # the same again takes the place of the first
            run(["predict", *given, *more])
    folders = {path.name: path for path in (tmp_path / "vqa" / "default").iterdir()}
    assert set(folders) == {"predict", "predict_validation", "predict_VQARAD_train_other"}
    answers = set(torch.load(best(trained), weights_only=True)["hyper_parameters"]["answers"])
    for name, split in (
        ("predict", "test"),
        ("predict_validation", "validation"),
        ("predict_VQARAD_train_other", "train"),
    ):
        table = pd.read_csv(folders[name] / "predictions.csv", keep_default_na=False)
        told = json.loads((folders[name] / "predictions.json").read_text())
        assert told["split"] == split and str(len(table)) == told["test"]["facts"][split] and told["limits"] is None
        assert set(table["answer"]) <= answers  # the checkpoint's own, whatever the data is
    assert table["question_id"].astype(str).tolist() == [one.sample_id for one in VQARAD(str(other)).records("train")]


def test_a_test_split_without_images_ends_a_training_before_it_begins(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "data")
    content = json.loads((root / SINGLE_FILE).read_text())
    (root / SINGLE_FILE).write_text(json.dumps([*content[:-1], {**content[-1], "image_name": "gone.png"}]))
    with pytest.raises(
        UserError, match=r"the test split has no usable row .*1 x test row left out: image: no such file"
    ):
        fit(tmp_path / "runs", ["vqa.yaml"], "--data=VQARAD", f"--data.root={root}")
    assert not (tmp_path / "runs" / "vqa" / "default").exists()


def test_a_training_whose_test_split_has_no_answers_ends_with_predictions(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "data")
    content = json.loads((root / SINGLE_FILE).read_text())
    (root / SINGLE_FILE).write_text(json.dumps([*content[:-1], {**content[-1], "answer": None}]))
    data = ["--data=VQARAD", f"--data.root={root}", "--trainer.limit_test_batches=1.0"]
    fit(tmp_path / "runs", ["vqa.yaml"], *data)
    folder = tmp_path / "runs" / "vqa" / "default"
    results = json.loads((folder / "results.json").read_text())
    assert results["rows"] == [] and results["test"]["without_truth"] == 1
    assert pd.read_csv(folder / "predictions.csv", keep_default_na=False)["correct"].tolist() == [""]
    run(["test", f"--ckpt_path={best(tmp_path / 'runs')}", *QUIET])
    assert json.loads((folder / "test" / "results.json").read_text())["notes"] == results["notes"]
