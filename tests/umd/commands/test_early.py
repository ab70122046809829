"""A slip of the hand costs no wait: it is said before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from umd.commands.arguments import with_found_checkpoint
from umd.commands.early import check_early, value_of
from umd.files import UserError

CODE = """
import sys
from umd.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "lightning", "transformers", "datamodules"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["test", "--ckpt_path", "nope.ckpt"], "umd: there is no checkpoint 'nope.ckpt'"),
        (["fit"], "umd: umd fit needs a stage: umd fit --config configs/pretrain.yaml is the first, "),
        (["fit", "--config", "nope.yaml"], "umd: --config: there is no file 'nope.yaml'"),
        (
            ["fit", "--config", "configs/data/slake.yaml"],
            "umd: umd fit needs a stage: umd fit --config configs/pretrain",
        ),
        (["fit", "--config", "a: [1"], "umd: --config: what is typed, line 1: not YAML: expected ',' or ']'"),
        (["data", "--config", "a: 'b"], "umd: --config: what is typed, line 1: not YAML: "),
        (
            ["fit", "--config", "configs/vqa.yaml", "--model.init_from=nope.ckpt"],
            "umd: --model.init_from: there is no file 'nope.ckpt'",
        ),
        (["answer", "--ckpt_path", "nope.ckpt", "--image", "a.png"], "umd: there is no checkpoint 'nope.ckpt'"),
        (["score", "nope.csv", "--data", "vqa_rad"], "umd: there is no file 'nope.csv'"),
        (
            ["score", __file__, "--data", "vqarad"],
            "umd: --data: there is no configs/data/vqarad.yaml; did you mean vqa_rad?",
        ),
        (["compare", "nope"], "umd: there is no run 'nope'"),
        (["compare", __file__], f"umd: '{__file__}' is a file: give the folder of a test; umd score compares files"),
        (["data", "--data.root", "."], "umd: which data set?"),
        (["data", "--config", "configs/data/vqarad.yaml"], "umd: --config: there is no file"),
        (["serve", "--ckpt_path", "nope.ckpt"], "umd: there is no checkpoint 'nope.ckpt'"),
    ],
)
def test_what_is_not_there_is_said_at_once(typed: list[str], said: str) -> None:
    ended = subprocess.run([sys.executable, "-c", CODE, *typed], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(said) and ended.stderr.count("\n") == 1, ended.stderr


def test_runs_are_compared_without_torch(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = [{"group": "overall", "questions": 4, "accuracy": 50.0, "interval_low": 0.0, "interval_high": 100.0}]
        results = {"title": "a test", "columns": list(rows[0]), "rows": rows, "notes": []}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    typed = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    ended = subprocess.run([sys.executable, "-c", CODE, *typed], capture_output=True, text=True)
    assert ended.returncode == 0 and "overall" in ended.stdout, ended.stderr


@pytest.mark.parametrize("command", ["answer", "score", "compare", "serve"])
def test_help_is_shown_without_torch(command: str) -> None:
    ended = subprocess.run([sys.executable, "-c", CODE, command, "--help"], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.startswith(f"usage: umd {command}"), ended.stderr


def test_what_may_be_there_is_let_through(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.ckpt"
    checkpoint.touch()
    for command, *options in (
        ("test", "--ckpt_path", str(checkpoint)),
        ("fit", "--ckpt_path=last"),
        ("fit", "--model", "umd.MRPretrain", "--model.init_from", "null"),
        ("fit", "--help"),
        ("fit", "--print_config"),
    ):
        check_early(command, options)
    with pytest.raises(UserError, match="there is no checkpoint"):
        check_early("fit", ["--ckpt_path", str(tmp_path)])


def test_a_value_is_found_in_both_forms() -> None:
    assert value_of("--name", ["--name", "a", "--name=b"]) == "a"
    assert value_of("--name", ["--names=c", "--name=b=c"]) == "b=c"
    assert value_of("--name", ["--name"]) is None


def test_a_run_folder_is_its_chosen_checkpoint_but_a_training_wants_to_be_told(tmp_path: Path) -> None:
    folder, best = str(tmp_path), tmp_path / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError, match=r"is no folder of a run, which would have checkpoints/best\.ckpt or"):
        check_early("test", ["--ckpt_path", folder])
    best.parent.mkdir()
    best.touch()
    for options in (["--ckpt_path", folder, "--runs", folder], [f"--ckpt_path={folder}", "--runs", folder]):
        check_early("test", options)
        typed = with_found_checkpoint(options)
        assert value_of("--ckpt_path", typed) == str(best) and value_of("--runs", typed) == folder
        with pytest.raises(UserError, match=f"is a run's folder; its checkpoints are {best}"):
            check_early("fit", options)
