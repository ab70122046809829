"""Steps that run elsewhere than in `umd reproduce`: by Snakemake, and by hand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.umd.reproduce.test_plan import ROOT
from umd.reproduce.code import PACKAGES

SMALL: dict[str, dict[str, Any]] = {
    "pretrain.yaml": {"size": 40, "batch_size": 8},
    "calibrate.yaml": {"size": 24, "batch_size": 16},
    "vqa.yaml": {"size": 24, "batch_size": 16},
}
TABLE = ["reproduce", "table1", "--rows", "umd", "blank_image", "--protocol", "clean"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project with little data and long pre-training, to be worked in."""
    for folder in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changed in SMALL.items():
        path = tmp_path / "configs" / name
        content = yaml.safe_load(path.read_text())
        content["data"]["init_args"] |= changed
        content["trainer"]["max_epochs"] = 12 if name == "pretrain.yaml" else 2
        path.write_text(yaml.safe_dump(content))
    return tmp_path


def start(tree: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(tree), "UMD_CACHE": str(tree / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(
        command, cwd=tree, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    try:
        output, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == code, output
    return output


def snakemake(tree: Path) -> subprocess.Popen[str]:
    return start(tree, "snakemake", "--snakefile", "rules/Snakefile", "--cores", "2")


def appears(tree: Path, pattern: str) -> Path:
    """Wait for a file."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        if found := list(tree.glob(pattern)):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"no {pattern}")


def test_snakemake_runs_the_steps_and_goes_on_where_one_was_killed(tree: Path) -> None:
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("snakemake")
    finish(start(tree, "umd.cli", *TABLE, "--snakefile", "rules/Snakefile"))
    with snakemake(tree) as process:
        checkpoint = appears(tree, "results/runs/pretrain/*/checkpoints/last.ckpt")
        family = psutil.Process(process.pid).children(recursive=True)
        (training,) = [one for one in family if "fit" in one.cmdline() and str(tree) not in one.cmdline()[0]]
        training.kill()
        assert "Error in rule pretrain_" in finish(process, code=1)
    run = checkpoint.parents[1]
    assert not (run / "done.json").exists() and checkpoint.exists()
    finish(snakemake(tree))
    log = (tree / "results/logs/pretrain" / f"{run.name}.log").read_text()
    goes_on = f"$ umd fit --ckpt_path {checkpoint.relative_to(tree)}"
    assert [line for line in log.splitlines() if line.startswith("$ umd")][-1] == goes_on
    assert "Nothing to be done" in finish(snakemake(tree))

    before = {path: path.stat().st_mtime_ns for path in (tree / "results").rglob("*") if path.name != ".lock"}
    printed = finish(start(tree, "umd.cli", *TABLE))
    after = {path: path.stat().st_mtime_ns for path in before}
    files = {path for path in before if path.is_file()}
    assert {path for path in files if before[path] != after[path]} == set(), "nothing was run"
    rows = json.loads((tree / "results/table1.json").read_text())["rows"]
    assert {row["row"] for row in rows} == {"most_frequent", "umd", "blank_image"}
    assert "UMD, tested on blank images" in printed


def test_a_line_that_was_run_by_hand_is_taken_over_unless_it_was_changed(tree: Path) -> None:
    lines = finish(start(tree, "umd.cli", *TABLE, "--dry_run")).splitlines()
    pretrain, calibrate = (
        shlex.split(next(line for line in lines if line.startswith("umd fit") and f"/{stage}.yaml" in line))
        for stage in ("pretrain", "calibrate")
    )
    finish(start(tree, "umd.cli", *pretrain[1:]))
    finish(start(tree, "umd.cli", *calibrate[1:], "--model.optimizer.lr=0.5"))
    shown = finish(start(tree, "umd.cli", *TABLE), code=1)
    assert "model.optimizer.lr is 0.5, not 0.001. Move it away" in shown
    log = next((tree / "results/logs/pretrain").glob("*.log")).read_text()
    assert [line for line in log.splitlines() if line.startswith("$")] == [
        f"$ umd fit --ckpt_path results/runs/pretrain/{pretrain[-1]}/checkpoints/last.ckpt"
    ]
    shutil.rmtree(tree / "results/runs/calibrate" / calibrate[-1])
    finish(start(tree, "umd.cli", *calibrate[1:]))
    finish(start(tree, "umd.cli", *TABLE))
