"""A training that is interrupted and goes on ends as the one that never was: bit for bit, files and results too."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.configs.test_configs import CONFIGS, TINY, TINY_GGP, TINY_UMD
from umd.commands.train import run
from umd.run.checkpoint_io import AtomicCheckpointIO

DROPOUT = "--model.encoder.fusion_dropout=0.1"
STAGES = {
    "pretrain": [*TINY_UMD, DROPOUT],  # a teacher, masks, the perturbation
    "vqa": [*TINY_UMD, DROPOUT, "--trainer.limit_val_batches=2"],  # both callbacks, a test at the end
    "contrastive_pretrain": TINY_GGP,  # a queue, momentum encoders, dropout of its own
}
EVERY_STEP = (
    "--trainer.callbacks+={class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: "
    "{every_n_train_steps: 1, filename: step, enable_version_counter: false}}"
)
SHORT = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=3",
    "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--data.size=16",
    "--data.batch_size=4",
    "--data.num_workers=0",
]
Moment = tuple[str, int]  # which file was just written, after how many steps
MOMENTS: dict[str, Moment] = {
    "in an epoch": ("step.ckpt", 2),
    "after the last batch of an epoch, before its validation": ("step.ckpt", 3),
    "between the best checkpoint of an epoch and the last one": ("best.ckpt", 3),
    "between two epochs": ("last.ckpt", 3),
    "after the last batch of all": ("step.ckpt", 6),
    "before the test": ("last.ckpt", 6),
}


FEWER = ("in an epoch", "after the last batch of an epoch, before its validation", "before the test")


def start(stage: str, root: Path, *more: str) -> Path:
    """Train into `root` and return the run's folder."""
    given = [f"--config={CONFIGS / stage}.yaml", *TINY, *STAGES[stage], *SHORT, *more]
    run(["fit", *given, f"--runs={root / 'runs'}", f"--data.root={root.parent / 'data'}"])
    return root / "runs" / stage / "default"


def differences(one: object, other: object, at: str = "") -> Iterator[str]:
    """Every place in which two checkpoints differ, tensors compared bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{at}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{at}[{index}]")
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield at
    elif one != other:
        yield f"{at}: {one!r} and {other!r}"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def same_checkpoints(folder: Path, wanted: Path, names: set[str]) -> None:
    """The same files, and the same in every place of those with these names."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in wanted.iterdir()}
    for name in names:
        assert list(differences(read(folder / name), read(wanted / name))) == [], name


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def results(folder: Path) -> dict[str, Any]:
    """The test's results, but for the digest of the checkpoint: the same content need not be the same bytes."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    del found["checkpoint"]["sha256"]
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_goes_on_as_if_it_had_never_stopped(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole run folder is kept as it stood at each moment, as `kill -9` would have left it."""
    moments: dict[Moment, Path] = {}
    write = AtomicCheckpointIO.save_checkpoint

    def write_and_keep(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **options: Any) -> None:  # noqa: ANN401
        write(self, checkpoint, path, **options)
        moment = (Path(path).name, int(checkpoint["global_step"]))
        if moment in MOMENTS.values():
            moments[moment] = tmp_path / f"{moment[0]}-{moment[1]}"
            shutil.copytree(Path(path).parents[1], moments[moment])

    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", write_and_keep)
        folder = start(stage, tmp_path / "run", EVERY_STEP)
    wanted = tmp_path / "wanted"
    folder.rename(wanted)
    logged = rows(wanted / "csv" / "version_0" / "metrics.csv")
    for moment in MOMENTS if stage == "pretrain" else FEWER:
        name, step = MOMENTS[moment]
        kept = moments.get((name, step))
        if kept is None:
            assert name == "best.ckpt", moment  # a first epoch is the best so far, a later one need not be
            continue
        shutil.copytree(kept, folder)
        run(["fit", f"--ckpt_path={folder / 'checkpoints' / name}"])
        # The best one of an epoch is written before the last one, and does not know of it.
        names = {"best.ckpt", "last.ckpt", "step.ckpt"} if name != "best.ckpt" else {"last.ckpt"}
        same_checkpoints(folder / "checkpoints", wanted / "checkpoints", names)
        if (wanted / "results.json").exists():
            assert results(folder) == results(wanted), moment
        if (name, step) != ("last.ckpt", 6):
            # The row of the checkpoint's own step is written after it: that one alone may be in neither file.
            before = rows(kept / "csv" / "version_0" / "metrics.csv")
            after = rows(folder / "csv" / "version_1" / "metrics.csv")
            assert logged[-len(after) :] == after, moment
            assert logged[: len(before)] == before, moment
            assert len(before) + len(after) >= len(logged) - 1, moment
        shutil.rmtree(folder)


def test_validation_that_is_counted_over_epochs_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four batches between two validations, three in an epoch, two in an optimizer step: all fall apart."""
    kept: list[Path] = []
    write = AtomicCheckpointIO.save_checkpoint

    def write_and_keep(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **options: Any) -> None:  # noqa: ANN401
        write(self, checkpoint, path, **options)
        if Path(path).name == "last.ckpt":
            kept.append(tmp_path / f"kept-{len(kept)}")
            shutil.copytree(Path(path).parents[1], kept[-1])

    over_epochs = ["--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=4"]
    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", write_and_keep)
        folder = start(
            "pretrain", tmp_path / "run", *over_epochs, "--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=4"
        )
    assert len(kept) == 3
    wanted = folder.rename(tmp_path / "wanted")
    for moment in kept[:2]:
        shutil.copytree(moment, folder)
        run(["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"])
        same_checkpoints(folder / "checkpoints", wanted / "checkpoints", {"best.ckpt", "last.ckpt"})
        shutil.rmtree(folder)


def test_an_optimizer_goes_on_with_what_was_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = start("pretrain", tmp_path / "run")
    optimizer = {"lr": "1e-4", "weight_decay": "0.3", "schedule": "constant_with_warmup", "warmup_ratio": "0"}
    changed = [f"--model.optimizer.{name}={value}" for name, value in optimizer.items()]
    with caplog.at_level("INFO"):
        run(["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=3", *changed])
    (state,) = read(folder / "checkpoints" / "last.ckpt")["optimizer_states"]
    decay = {group["name"]: group["weight_decay"] for group in state["param_groups"]}
    assert decay == {name: 0.0 if name.endswith("/no_decay") else 0.3 for name in decay}
    logged = rows(folder / "csv" / "version_1" / "metrics.csv")
    rates = [float(row["learning_rate"]) for row in logged if "learning_rate" in row]
    assert rates == [1e-4] * 3, "from the first step on"
    assert "learning rate goes on at 0.0001 (checkpoint: 0)" in caplog.text


def test_a_training_by_the_released_codes_contributions_goes_on_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where its config is given again: that one does not say how contributions are measured."""
    folder = start("vqa", tmp_path / "run", "--model.contribution=last_layer", "--test_after_fit=false")
    config = f"--config={CONFIGS / 'vqa.yaml'}"
    given = [*TINY, *STAGES["vqa"], *SHORT, "--trainer.max_epochs=3", "--test_after_fit=false"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    run(["fit", config, *given, f"--ckpt_path={checkpoint}", f"--data.root={tmp_path / 'data'}"])
    assert read(checkpoint)["hyper_parameters"]["contribution"] == "last_layer"
    assert "contribution is 'last_layer', as in the released code" in caplog.text


def best_state(path: Path) -> dict[str, Any]:
    """What the checkpoint callback with a monitor knows of the best checkpoint."""
    found: dict[str, Any] = next(state for state in read(path)["callbacks"].values() if state.get("monitor"))
    return found


@pytest.mark.parametrize("how", ["moved", "elsewhere"])
def test_the_best_checkpoint_stays_the_best_in_another_folder(how: str, tmp_path: Path) -> None:
    """Else the first epoch after a move would replace a better one."""
    folder = start("vqa", tmp_path / "run", "--trainer.max_epochs=1", "--test_after_fit=false")
    first = best_state(folder / "checkpoints" / "last.ckpt")
    longer = ["--trainer.max_epochs=3", "--test_after_fit=false"]
    if how == "moved":
        folder = folder.rename(tmp_path / "moved")
        run(["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", *longer])
    else:
        other = tmp_path / "other"
        run(["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", f"--runs={other}", *longer])
        folder = other / "vqa" / "default"
    after = best_state(folder / "checkpoints" / "last.ckpt")
    best = folder / "checkpoints" / "best.ckpt"
    assert after["best_model_path"] == str(best)
    scores = [
        float(row["validation/overall"])
        for row in rows(max(folder.rglob("metrics.csv")))
        if "validation/overall" in row
    ]
    scores = [float(first["best_model_score"]), *scores[-2:]]
    assert float(after["best_model_score"]) == pytest.approx(max(scores))
    assert int(read(best)["global_step"]) == 3 * (1 + scores.index(max(scores)))
