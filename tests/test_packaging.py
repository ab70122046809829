"""The built wheel, installed far from the repository: umd brings its configs, and nothing of the repository's else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.configs.test_configs import SHIPPED, SHORT, TINY, TINY_UMD

ROOT = Path(__file__).parents[1]
WHERE = """
import importlib.util, json, umd, callbacks, datamodules
found = {name: importlib.util.find_spec(name) is not None for name in ("configs", "tests")}
print(json.dumps([[package.__file__ for package in (umd, callbacks, datamodules)], found]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    build = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_packages_their_data_and_the_configs(wheel: Path) -> None:
    kinds = {".css", ".html", ".js", ".json", ".py", ".txt"}
    sources = [path for name in ("umd", "callbacks", "datamodules") for path in (ROOT / name).rglob("*")]
    expected = {path.relative_to(ROOT).as_posix() for path in sources if path.suffix in kinds}
    expected |= {f"umd/configs/{name}" for name in SHIPPED}
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith(".md")}
    assert held == expected


@pytest.mark.slow
def test_an_installed_wheel_trains_from_its_own_configs_in_any_folder(wheel: Path, tmp_path: Path) -> None:
    environment, away = tmp_path / "environment", tmp_path / "away"
    away.mkdir()
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    own = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    # The libraries are those of this environment, behind the wheel's own packages: its path comes later.
    libraries = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (own / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables["OMP_NUM_THREADS"] = "1"

    def run(*words: object) -> str:
        ended = subprocess.run(
            [str(word) for word in words], cwd=away, env=variables, check=False, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    alone = ("--no-deps", "--no-index", "--ignore-installed", "--disable-pip-version-check")
    run(python, "-m", "pip", "install", *alone, wheel)
    places, found = json.loads(run(python, "-c", WHERE))
    assert all(Path(place).is_relative_to(own) for place in places)
    assert found == {"configs": False, "tests": False}

    umd = environment / "bin" / "umd"
    small = ["--data.root", away / "data", "--data.size", "12"]
    said = run(umd, "fit", "--config", "configs/pretrain.yaml", *TINY, *TINY_UMD, *SHORT, *small)
    assert (away / "runs" / "pretrain" / "default" / "checkpoints" / "last.ckpt").is_file()
    assert "config configs/pretrain.yaml: there is none here, so umd's own is taken" in " ".join(said.split())
    run(umd, "data", "--config", "vqa.yaml", "--data.root", away / "vqa", "--data.size", "12", "--out", away / "facts")
    assert json.loads((away / "facts" / "summary.json").read_text())["class"] == "datamodules.PhantomVQA"
    planned = run(umd, "reproduce", "table1", "--dry_run")
    assert f"--config {own / 'umd' / 'configs' / 'pretrain.yaml'}" in planned
