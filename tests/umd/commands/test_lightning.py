"""What Lightning offers works, or is refused in one line: nothing is half done in silence."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.configs.test_configs import CONFIGS, SHORT, TINY, TINY_UMD
from umd.cli import main
from umd.commands.train import run


def callback(name: str, arguments: str = "") -> str:
    return f"--trainer.callbacks+={{class_path: lightning.pytorch.callbacks.{name}, init_args: {{{arguments}}}}}"


def command(folder: Path, *more: str) -> list[str]:
    """Two epochs of two steps of a VQA training with a test at the end."""
    data = [f"--data.root={folder / 'data'}", "--data.size=12"]
    length = ["--trainer.max_epochs=2", "--trainer.max_steps=-1", "--trainer.limit_train_batches=2"]
    config = [f"--config={CONFIGS / 'vqa.yaml'}", f"--runs={folder / 'runs'}"]
    return ["fit", *config, *TINY, *TINY_UMD, *SHORT, *length, *data, *more]


def run_of(folder: Path) -> Path:
    return folder / "runs" / "vqa" / "default"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in error, error
    return error.splitlines()[-1]


# What works


def test_averaged_weights_hold_the_head_and_go_on(tmp_path: Path) -> None:
    """The head's size is known from the data alone, and the average is of all weights."""
    every = callback("ModelCheckpoint", "every_n_train_steps: 1, save_top_k: -1, filename: '{step}'")
    run(command(tmp_path, callback("EMAWeightAveraging", "decay: 0.75"), every))
    steps = [read(run_of(tmp_path) / "checkpoints" / f"step={step}.ckpt") for step in (1, 2)]
    weights = [checkpoint["current_model_state"] for checkpoint in steps]
    for name in ("head.last.weight", "encoder.fusion.image_projection.weight"):
        expected = 0.75 * weights[0][name] + 0.25 * weights[1][name]
        torch.testing.assert_close(steps[1]["state_dict"][name], expected)
        assert not torch.equal(weights[0][name], weights[1][name])
    assert (run_of(tmp_path) / "results.json").is_file()
    run(["fit", f"--ckpt_path={run_of(tmp_path) / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=3"])
    assert read(run_of(tmp_path) / "checkpoints" / "last.ckpt")["global_step"] == 6


def test_a_stochastic_average_is_what_is_tested_and_kept(tmp_path: Path) -> None:
    run(command(tmp_path, callback("StochasticWeightAveraging", "swa_lrs: 0.01, swa_epoch_start: 1")))
    averaged, last = (run_of(tmp_path) / "checkpoints" / f"{name}.ckpt" for name in ("averaged", "last"))
    assert not torch.equal(*(read(path)["state_dict"]["head.last.weight"] for path in (averaged, last)))
    run(["test", f"--ckpt_path={averaged}", "--trainer.limit_test_batches=1", "--trainer.accelerator=cpu"])
    own, again = (
        json.loads((folder / "results.json").read_text()) for folder in (run_of(tmp_path), run_of(tmp_path) / "test")
    )
    assert own["rows"] == again["rows"]


def test_the_rate_that_a_finder_finds_is_what_is_trained_with(tmp_path: Path) -> None:
    finder = callback("LearningRateFinder", "num_training_steps: 25, min_lr: 1.0e-4, max_lr: 1.0")
    more = ["--data.size=40", "--trainer.limit_train_batches=15", "--trainer.log_every_n_steps=1"]
    more += ["--model.optimizer.schedule=constant_with_warmup", "--model.optimizer.warmup_ratio=0"]
    run(command(tmp_path, finder, *more, "--model.optimizer.head_multiplier=3", "--test_after_fit=false"))
    last = read(run_of(tmp_path) / "checkpoints" / "last.ckpt")
    found = last["hyper_parameters"]["optimizer"]["lr"]
    assert found != 1e-3, "the config's"
    with (run_of(tmp_path) / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]]
    assert rates == pytest.approx([found] * 30)
    groups = {group["name"]: group["lr"] for group in last["optimizer_states"][0]["param_groups"]}
    assert groups["head"] == pytest.approx(3 * found) and groups["vision"] == pytest.approx(found)
    assert last["umd"]["model"]["init_args"]["optimizer"]["lr"] == found
    names = [entry["class_path"].rpartition(".")[2] for entry in last["umd"]["trainer"]["callbacks"]]
    assert "LearningRateFinder" not in names, "a training that goes on does not look again"


def test_no_checkpoint_is_written_where_none_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The config has two callbacks of that name."""
    run(command(tmp_path, "--callback", "ModelCheckpoint=off"))
    assert not list(tmp_path.rglob("*.ckpt")) and (run_of(tmp_path) / "results.json").is_file()
    assert "the test is of the weights at the end" in caplog.text


def test_a_training_ends_early_where_it_is_asked_to(tmp_path: Path) -> None:
    patience = callback("EarlyStopping", "monitor: train/loss, mode: max, patience: 1, check_on_train_epoch_end: true")
    run(command(tmp_path, patience, "--trainer.max_epochs=20"))
    assert read(run_of(tmp_path) / "checkpoints" / "last.ckpt")["global_step"] < 40


def test_a_logger_stands_beside_ours_and_all_lies_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "config.yaml").write_text("the user's own")
    monkeypatch.chdir(here)
    diary = ["--trainer.logger=tests.umd.commands.loggers.Diary", "--trainer.log_every_n_steps=1"]
    run(command(tmp_path, *diary))
    assert [path.name for path in here.iterdir()] == ["config.yaml"]
    assert (here / "config.yaml").read_text() == "the user's own"
    folder = run_of(tmp_path)
    assert {"config.yaml", "results.json", "diary.txt", "csv", "checkpoints"} <= {
        path.name for path in folder.iterdir()
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list(folder.glob("events.*")) and "train/loss" in (folder / "diary.txt").read_text()
    run(["test", f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}", *diary[:1], "--trainer.accelerator=cpu"])
    assert (folder / "test" / "diary.txt").is_file() and [path.name for path in here.iterdir()] == ["config.yaml"]


def test_a_checkpoint_finds_its_data_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(command(tmp_path, "--data.root=data", "--test_after_fit=false"))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    run(["test", f"--ckpt_path={run_of(tmp_path) / 'checkpoints' / 'best.ckpt'}", "--trainer.accelerator=cpu"])
    assert list(other.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == written


# What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trainer.accelerator=cuda", "--trainer.devices=1"], "the trainer cannot be made: "),
        (["--trainer.accelerator=cuda", "--trainer.devices=4"], "the trainer cannot be made: "),
        (["--trainer.strategy=fsdp"], "The strategy `fsdp` requires a GPU"),
        (["--trainer.strategy=ddp_spawn", "--trainer.devices=2"], "ddp_spawn does not work here"),
        ([callback("BatchSizeFinder")], "BatchSizeFinder does not work here"),
        ([callback("StochasticWeightAveraging", "swa_lrs: 0.1, swa_epoch_start: 9")], "but the training has 2 epochs"),
        (["--callback", "ModelCheckpoint.filename=x"], "has 2 callbacks 'ModelCheckpoint', and nothing says which"),
    ],
    ids=["no GPU", "too many devices", "fsdp", "spawn", "batch size", "average of nothing", "which callback"],
)
def test_what_does_not_work_is_refused_before_it_begins(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert said in refusal(command(tmp_path, *options), capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(find_spec("comet_ml") is not None, reason="the package is there")
def test_a_loggers_package_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(command(tmp_path, "--trainer.logger=CometLogger"), capsys)
    assert error.startswith("umd: CometLogger: ") and "comet" in error.removeprefix("umd: CometLogger")


def test_a_metric_that_nothing_measures_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(command(tmp_path, callback("EarlyStopping", "monitor: val_loss")), capsys)
    assert "nothing called 'val_loss' is measured, but " in error and "validation/overall" in error


def test_fewer_tasks_than_devices_are_no_smaller_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1", "SLURM_NODEID": "0"}
    for name, value in (tasks | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).items():
        monkeypatch.setenv(name, value)
    error = refusal(command(tmp_path, "--trainer.devices=2"), capsys)
    assert "Slurm runs 1 task(s), but 2 device(s)" in error and "--ntasks-per-node=2" in error


def test_going_on_with_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run(command(tmp_path, "--data.size=2", "--test_after_fit=false"))
    go_on = ["fit", f"--ckpt_path={run_of(tmp_path) / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=3"]
    slake = [f"--config={CONFIGS / 'data' / 'slake.yaml'}", f"--data.root={tmp_path}"]
    error = refusal([*go_on, *slake], capsys)
    assert "a training on datamodules.PhantomVQA" in error and "--model.init_from" in error
    more = ["--data.size=200", f"--data.root={tmp_path / 'more'}", "--test_after_fit=false"]
    run([*go_on, *more])
    assert "are not among those of the checkpoint, and the model keeps those: " in caplog.text
