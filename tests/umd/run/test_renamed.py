"""A checkpoint from before files moved and arguments were renamed is as good as a new one."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.configs.test_configs import fit, step
from umd.commands.train import run
from umd.run.renamed import RENAMED_ARGUMENTS, option_of_today, public_class_path, with_names_of_today
from umd.run.settings import settings_of

# Where the classes lay that checkpoints named by file.
ONCE = [
    "umd.modules.calibrate.TDCalib",
    "umd.modules.classification.Classification",
    "umd.modules.contrastive_pretrain.ContrastivePretrain",
    "umd.modules.pretrain.MRPretrain",
    "umd.modules.retrieval.Retrieval",
    "umd.modules.vqa.VQAClassifier",
    "umd.modules.vqa_generation.VQAGenerator",
    "datamodules.captions.RadiologyCaptions",
    "datamodules.melinda.MELINDA",
    "datamodules.phantom.PhantomCaptions",
    "datamodules.phantom.PhantomVQA",
    "datamodules.phantom_tasks.PhantomClassification",
    "datamodules.phantom_tasks.PhantomRetrieval",
    "datamodules.roco_retrieval.ROCORetrieval",
    "datamodules.slake.SLAKE",
    "datamodules.vqa_med_2019.VQAMed2019",
    "datamodules.vqa_rad.VQARAD",
    "callbacks.modality_coordination.ModalityCoordination",
    "callbacks.weight_perturbation.WeightPerturbation",
]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]


@pytest.mark.parametrize("once", ONCE)
def test_a_class_is_found_by_the_file_that_it_lay_in(once: str) -> None:
    face, _, name = public_class_path(once).rpartition(".")
    assert (face, name) == (once.partition(".")[0], once.rpartition(".")[2])
    assert isinstance(getattr(import_module(face), name), type)


@pytest.mark.parametrize("other", ["umd.modules.vqa.Own", "my.package.VQAClassifier", "VQAClassifier", "umd"])
def test_a_class_that_no_face_exports_keeps_its_name(other: str) -> None:
    assert public_class_path(other) == other


def test_an_argument_of_another_class_keeps_its_name() -> None:
    settings = {"class_path": "own.ROCORetrieval", "init_args": {"other_texts": 3}}
    assert with_names_of_today([settings]) == [settings]
    assert option_of_today("datamodules.PhantomVQA", "other_texts") is None


def as_it_was(content: dict[str, Any]) -> dict[str, Any]:
    """The same checkpoint with classes named by file, and arguments as they were called then."""
    settings = content["umd"]
    paths = {public_class_path(once): once for once in ONCE}
    for part in (settings["model"], settings["data"], *settings["trainer"]["callbacks"]):
        before = {new: old for old, new in RENAMED_ARGUMENTS.get(part["class_path"], {}).items()}
        arguments = part.get("init_args", {})
        part["init_args"] = {before.get(name, name): value for name, value in arguments.items()}
        part["class_path"] = paths.get(part["class_path"], part["class_path"])
    return content


def test_a_checkpoint_from_before_tests_to_the_same_digits_and_goes_on(tmp_path: Path) -> None:
    data = [f"--data.root={tmp_path / 'data'}", "--data.size=30", "--data.negatives=3"]
    test = ["--trainer.limit_test_batches=1.0"]
    last = fit(tmp_path / "runs", ["retrieval.yaml"], *data, *test)
    content = as_it_was(torch.load(last, weights_only=True))
    assert content["umd"]["data"]["class_path"] == "datamodules.phantom_tasks.PhantomRetrieval"
    assert content["umd"]["data"]["init_args"]["other_texts"] == 3
    assert settings_of(last)["data"]["init_args"]["negatives"] == 3
    old = tmp_path / "old.ckpt"
    torch.save(content, old)

    own = json.loads((tmp_path / "runs" / "retrieval" / "default" / "results.json").read_text())
    run(["test", f"--ckpt_path={old}", f"--runs={tmp_path / 'again'}", *QUIET])
    again = json.loads((tmp_path / "again" / "retrieval" / "default" / "test" / "results.json").read_text())
    assert again["rows"] == own["rows"]

    longer = ["--trainer.max_epochs=2", "--trainer.max_steps=-1", "--test_after_fit=false", *QUIET]
    for name, checkpoint in (("old", old), ("new", last)):
        run(["fit", f"--ckpt_path={checkpoint}", f"--runs={tmp_path / name}", "--name=default", *longer])
    ends = [next((tmp_path / name).rglob("last.ckpt")) for name in ("old", "new")]
    assert [step(end) for end in ends] == [2, 2]
    weights = [torch.load(end, weights_only=True)["state_dict"] for end in ends]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
