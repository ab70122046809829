"""The protocol is the training's, through every stage: in titles, in results.json, and in what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.configs.test_configs import fit
from umd.commands.train import run
from umd.files import UserError

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one step each: pre-training on captions, from it a calibration under paper, from that VQA under paper."""
    folder = tmp_path_factory.mktemp("protocol")
    captions = fit(folder / "captions", ["pretrain.yaml"], *data_of(folder / "pairs"))
    paper = ["--data.protocol=paper", *data_of(folder / "questions")]
    calibrated = fit(folder / "calibrated", ["calibrate.yaml"], *paper, f"--model.init_from={captions}")
    fit(folder / "runs", ["vqa.yaml"], *paper, f"--model.init_from={calibrated}", "--trainer.limit_test_batches=1.0")
    return folder / "runs"


def data_of(root: Path) -> list[str]:
    return [f"--data.root={root}", "--data.size=12"]


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_results_name_the_checkpoint_and_every_stage_behind_it(runs: Path) -> None:
    own = runs / "vqa" / "default"
    found = results(own)
    assert (found["schema"], found["limits"]) == (1, None)
    assert found["title"].endswith(", protocol paper")
    best = own / "checkpoints" / "best.ckpt"
    digest = hashlib.sha256(best.read_bytes()).hexdigest()
    assert found["checkpoint"] == {"path": "checkpoints/best.ckpt", "sha256": digest, "step": 1, "epoch": 0}
    told = [(stage["stage"], stage["protocol"], stage["seed"]) for stage in [found["training"], *found["init_from"]]]
    assert told == [("umd.VQAClassifier", "paper", 0), ("umd.TDCalib", "paper", 0), ("umd.MRPretrain", None, 0)]
    for stage in found["init_from"]:
        assert stage["sha256"] == hashlib.sha256(Path(stage["path"]).read_bytes()).hexdigest()
    assert (found["test"]["data_class"], found["test"]["protocol"]) == ("PhantomVQA", "paper")
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_a_test_under_another_protocol_is_titled_as_what_it_is_and_overwrites_nothing(runs: Path) -> None:
    own = runs / "vqa" / "default"
    best = own / "checkpoints" / "best.ckpt"
    run(["test", f"--ckpt_path={best}", *QUIET])
    run(["test", f"--ckpt_path={best}", "--data.protocol=clean", *QUIET])
    run(["test", f"--ckpt_path={own / 'checkpoints' / 'last.ckpt'}", "--trainer.limit_test_batches=1", *QUIET])
    as_trained, clean, last = (results(own / name) for name in ("test", "test_clean", "test_last_partial"))
    data = clean["test"]["data"]
    assert as_trained["title"] == results(own)["title"] == f"{data}, protocol paper"
    assert as_trained["checkpoint"]["path"] == "../checkpoints/best.ckpt"
    assert as_trained["notes"] == results(own)["notes"]
    assert clean["title"] == f"{data}, trained under paper, tested on clean's questions"
    assert clean["rows"] == as_trained["rows"], "the questions, and the answers in reach, are the same"
    assert not [note for note in clean["notes"] if "left out of train" in note]
    assert f"train: {clean['training']['facts']['train']}" in clean["notes"]
    assert (last["limits"]["batches"], last["title"]) == (1, f"{data}, protocol paper, partial: 1 of 3 batches")


@pytest.mark.parametrize("way", ["--ckpt_path", "--model.init_from"])
def test_what_was_trained_under_paper_is_not_trained_on_under_clean(way: str, runs: Path, tmp_path: Path) -> None:
    path = runs / "vqa" / "default" / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"last.ckpt' was trained on .* under protocol paper .*--data.protocol paper"):
        fit(tmp_path, ["vqa.yaml"], f"{way}={path}", "--trainer.max_steps=2", *data_of(runs.parent / "questions"))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_checkpoint_of_the_past_says_that_its_training_is_not_known(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "old.ckpt"
    content = torch.load(runs / "vqa" / "default" / "checkpoints" / "best.ckpt", weights_only=True)
    del content["umd"]["lineage"]
    path.parent.mkdir()
    torch.save(content, path)
    run(["test", f"--ckpt_path={path}", *QUIET])
    found = results(tmp_path / "test")
    assert found["title"] == f"{found['test']['data']}, training protocol unknown, tested on paper's questions"
    last = fit(tmp_path / "runs", ["vqa.yaml"], f"--model.init_from={path}", *data_of(runs.parent / "questions"))
    own, behind = torch.load(last, weights_only=True)["umd"]["lineage"]
    assert (own["protocol"], behind["protocol"]) == ("clean", "unknown")
    assert ", training protocol unknown" in results(tmp_path / "runs" / "vqa" / "default")["title"]
