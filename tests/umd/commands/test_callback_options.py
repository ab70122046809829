"""`--callback` changes one callback of the config, and what is saved is what ran."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.configs.test_configs import CONFIGS, SHORT, TINY, TINY_UMD
from umd.commands.callback_options import with_options
from umd.commands.train import run

CALLBACKS = [
    {"class_path": "callbacks.WeightPerturbation", "init_args": {"adaptive": True}},
    {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "best"}},
    {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "last"}},
]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("WeightPertubation=off", "but WeightPerturbation, ModelCheckpoint; did you mean WeightPerturbation"),
        ("WeightPerturbation", "NAME=off or NAME.ARGUMENT=VALUE"),
        ("WeightPerturbation=on", "NAME=off or NAME.ARGUMENT=VALUE"),
        ("ModelCheckpoint.filename=x", "2 callbacks"),
    ],
)
def test_an_option_that_fits_no_callback_is_refused(option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_options(CALLBACKS, [option])


def test_a_training_runs_with_the_changed_callbacks_and_says_so_in_its_config(tmp_path: Path) -> None:
    given = ["--callback", "WeightPerturbation=off", "ModalityCoordination.beta=0.2"]
    data = [f"--data.root={tmp_path / 'data'}", "--data.size=12"]
    run(["fit", f"--config={CONFIGS / 'vqa.yaml'}", *TINY, *TINY_UMD, *SHORT, f"--runs={tmp_path}", *data, *given])
    saved = yaml.safe_load((tmp_path / "vqa" / "default" / "config.yaml").read_text())
    used = {entry["class_path"].rsplit(".")[-1]: entry.get("init_args", {}) for entry in saved["trainer"]["callbacks"]}
    assert "WeightPerturbation" not in used
    assert used["ModalityCoordination"]["beta"] == 0.2
    assert saved["callback"] == []
    (metrics,) = tmp_path.rglob("metrics.csv")
    assert "perturbation" not in metrics.read_text()
    assert "coordination/k_vision" in metrics.read_text()


def test_a_value_of_another_type_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    given = ["--callback", "ModalityCoordination.beta=much", f"--runs={tmp_path}"]
    with pytest.raises(ValueError, match="another type"):
        run(["fit", f"--config={CONFIGS / 'vqa.yaml'}", *given])
    assert list(tmp_path.iterdir()) == []
