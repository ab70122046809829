"""Killed at any moment and started again, `umd reproduce` ends with the same table to the last digit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SMALL: dict[str, dict[str, Any]] = {
    "pretrain.yaml": {"size": 40, "batch_size": 8},
    "calibrate.yaml": {"size": 24, "batch_size": 16},
    "vqa.yaml": {"size": 24, "batch_size": 16},
}
DRIVER = """
import sys
from pathlib import Path
import umd.reproduce.command as command
command._configs = lambda: Path(sys.argv[1])
command.main(["table1", "--rows", "umd", "--protocol", "clean", "--out", sys.argv[2]])
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The shipped configs, with little data."""
    folder = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", folder)
    for name, changed in SMALL.items():
        content = yaml.safe_load((folder / name).read_text())
        content["data"]["init_args"] |= changed
        content["trainer"]["max_epochs"] = 2
        (folder / name).write_text(yaml.safe_dump(content))
    return folder


def start(configs: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"UMD_CACHE": str(configs.parent / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(configs), str(out)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(configs: Path, out: Path) -> None:
    with start(configs, out) as process:
        try:
            _, errors = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 0, errors.decode()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_five_kills_change_nothing(configs: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    began = time.monotonic()
    finish(configs, undisturbed)
    took = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(5):
        process = start(configs, killed)
        time.sleep(moments.uniform(0.05, 0.35) * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(2)  # until the stage that it ran has ended too
    finish(configs, killed)
    first, second = (json.loads((out / "table1.json").read_text()) for out in (undisturbed, killed))
    assert first["rows"] == second["rows"]
    assert first["comparisons"] == second["comparisons"]
    answers = sorted((undisturbed / "runs" / "vqa").rglob("predictions.csv"))
    assert len(answers) == 1
    for path in answers:  # each answer's confidence too
        assert path.read_bytes() == (killed / path.relative_to(undisturbed)).read_bytes()
    began = time.monotonic()
    finish(configs, killed)
    assert time.monotonic() - began < took / 5  # at once: nothing is left to do
