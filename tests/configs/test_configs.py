"""Every shipped YAML runs: one optimizer step of its head's command, with tiny encoders on phantom data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise, takewhile
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from datamodules.phantom.images import render
from datamodules.phantom.layouts import Splits, write_melinda, write_roco, write_slake, write_vqa_rad
from datamodules.phantom.studies import draw_splits
from tests.datamodules.samples import medpix_line, write_medpix, write_rocov2
from umd.commands.train import run

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = [
    "--model.encoder.image_size=32",
    "--model.encoder.vision=tiny_vit",
    "--model.encoder.vision_weights=null",
    "--model.encoder.vision_options={width: 16, depth: 1}",
    "--model.encoder.text=tiny_bert",
    "--model.encoder.text_weights=null",
    "--model.encoder.fusion_layers=1",
]
TINY_UMD = [
    "--model.encoder.text_options={width: 16, layers: 1}",
    "--model.encoder.fusion_width=16",
    "--model.encoder.fusion_heads=4",
]
TINY_GGP = ["--model.encoder.text_options={width: 16}", "--model.encoder.text_layers=1"]
TINY_STAGES = {
    "contrastive_pretrain.yaml": TINY_GGP,
    "vqa_generation.yaml": [*TINY_GGP, "--model.decoder.layers=1", "--model.decoder.weights=null"],
}
SHORT = [
    "--trainer.max_epochs=1",
    "--trainer.max_steps=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.val_check_interval=null",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accumulate_grad_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.precision=32",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--data.batch_size=4",
    "--data.num_workers=0",
]


def write_vqa_med_2019(splits: Splits, root: Path) -> None:
    """Three questions a study, in the shorter form of VQA-Med-2019's layout."""
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        (root / name / "images").mkdir(parents=True)
        (root / name / "QAPairsByCategory").mkdir()
        lines: list[str] = []
        for number, category in enumerate(("modality", "plane", "organ"), start=1):
            rows = [
                (f"{split}{place}", f"what {category} is shown?|{getattr(study, category)}")
                for place, study in enumerate(splits[split])
            ]
            lines += [f"{image}|{category}|{rest}\n" for image, rest in rows]
            file = root / name / "QAPairsByCategory" / f"C{number}_{category.capitalize()}_{name}.txt"
            file.write_text("".join(f"{image}|{rest}\n" for image, rest in rows))
        (root / name / "VQAMed2019_Test_Questions_w_Ref_Answers.txt").write_text("".join(lines))
        for place, study in enumerate(splits[split]):
            Image.fromarray(render(study)).save(root / name / "images" / f"{split}{place}.jpg")


def write_own(splits: Splits, root: Path, *, hub: bool) -> None:
    """Tables of one's own, with what every task wants: as CSV beside the images or, as on the hub, with them inside."""
    (root / ("data" if hub else "images")).mkdir(parents=True)
    for split, studies in splits.items():
        table = pd.DataFrame(
            {
                "question": "what modality is shown?",
                "answer": [study.modality for study in studies],
                "caption": [f"number {place} of them shows the {study.organ}" for place, study in enumerate(studies)],
                "label": [study.modality for study in studies],
            }
        )
        names = [f"{split}{place}.png" for place in range(len(studies))]
        files = [BytesIO() for _ in studies]
        for study, file in zip(studies, files, strict=True):
            Image.fromarray(render(study)).save(file, format="PNG")
        if hub:
            held = [{"bytes": file.getvalue(), "path": name} for name, file in zip(names, files, strict=True)]
            table["image"] = pd.Series(held)
            table.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
        else:
            for name, file in zip(names, files, strict=True):
                (root / "images" / name).write_bytes(file.getvalue())
            table.assign(image=names).to_csv(root / f"{split}.csv", index=False)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a phantom in each published layout, under the names of the overlays in configs/data."""
    root = tmp_path_factory.mktemp("phantoms")
    three = draw_splits({"train": 12, "validation": 4, "test": 4}, seed=0)
    two = {name: three[name] for name in ("train", "test")}
    for layout in ("vqa_rad", "slake", "roco_medicat/roco", "melinda", "roco"):
        (root / layout).mkdir(parents=True)
    write_vqa_rad(two, root / "vqa_rad", seed=0)
    write_slake(three, root / "slake", seed=0)
    write_roco(three, root / "roco_medicat" / "roco", seed=0)
    write_melinda(three, root / "melinda", seed=0)
    write_vqa_med_2019(three, root / "vqa_med_2019")
    for layout in ("slake_captions", "medpix_slake/slake", "medpix_slake/vqa_rad"):
        (root / layout).mkdir(parents=True)
    write_vqa_rad(two, root / "medpix_slake" / "vqa_rad", seed=0)
    for layout in ("slake_captions", "medpix_slake/slake"):
        write_slake(three, root / layout, seed=0)
    # Enough that fifteen negatives differ from a pair's own.
    lines = [medpix_line(number, f"Finding number {number}.") for number in range(28)]
    rows = [(f"ROCOv2_2023_{number}", f"Finding number {number}.") for number in range(28)]
    for name in ("medpix", "medpix_retrieval", "medpix_slake/medpix"):
        write_medpix(root / name, {"train": lines[:20], "dev": lines[20:24], "test": lines[24:]})
    for name in ("rocov2", "rocov2_retrieval"):
        write_rocov2(root / name, {"train": rows[:20], "valid": rows[20:24], "test": rows[24:]})
    many = draw_splits({"train": 40, "validation": 4, "test": 4}, seed=0)
    write_roco(many, root / "roco", seed=0)
    for name in ("own_vqa", "own_captions", "own_retrieval", "own_classification"):
        write_own(many, root / name, hub=False)
    for name in ("vqa_rad_hub", "slake_hub", "path_vqa"):
        write_own(three, root / name, hub=True)
    return root


def fit(folder: Path, configs: list[str], *arguments: str) -> Path:
    """Train one step into `folder` and return the checkpoint that it leaves."""
    given = [f"--config={CONFIGS / name}" for name in configs]
    run(["fit", *given, *TINY, *TINY_STAGES.get(configs[0], TINY_UMD), *SHORT, f"--runs={folder}", *arguments])
    (last,) = folder.rglob("last.ckpt")
    return last


def step(path: Path) -> int:
    """How many optimizer steps a checkpoint has behind it."""
    done: int = torch.load(path, weights_only=True)["global_step"]
    return done


def command(path: Path) -> tuple[str, ...]:
    """The command in a config's head: what the config is for, and with what it goes together."""
    head = [line.removeprefix("#") for line in takewhile(lambda line: line[:1] == "#", path.read_text().splitlines())]
    first = next(place for place, line in enumerate(head) if line.startswith("   umd "))
    return tuple(shlex.split(" ".join(line.rstrip("\\") for line in head[first:])))


def configs_of(words: Sequence[str]) -> list[str]:
    """The configs that a command names, below configs/."""
    return [word.removeprefix("configs/") for option, word in pairwise(words) if option == "--config"]


# A later config wins: the stage, the data, the encoders, the stage's own; what is left out or added comes last.
SCALES = "(demo|paper|small)"
ORDER = (r"\w+\.yaml", "data/", rf"{SCALES}/\w*encoders", rf"{SCALES}/(?!\w*encoders)", "(ablation|callbacks)/")
SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
COMMANDS = {name: command(CONFIGS / name) for name in SHIPPED}


@pytest.mark.parametrize("preset", ["umd", "m3ae", "mae", "clip", "flip"])
def test_every_preset_trains_from_the_base_config(preset: str, tmp_path: Path) -> None:
    given = [f"--data.root={tmp_path / 'data'}", "--data.size=12", f"--model.reconstruction.preset={preset}"]
    assert step(fit(tmp_path / "runs", ["pretrain.yaml"], *given)) == 1


def test_no_other_kind_of_file_is_among_them() -> None:
    assert [path for path in CONFIGS.rglob("*") if path.is_file() and path.suffix not in (".yaml", ".md")] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_each_config_says_how_it_is_used(name: str) -> None:
    words = COMMANDS[name]
    named = configs_of(words)
    assert words[:2] == ("umd", "fit") and name in named
    assert set(named) <= set(SHIPPED)
    assert named == [one for kind in ORDER for one in named if re.match(kind, one)]


@pytest.mark.parametrize("words", sorted(set(COMMANDS.values())), ids=lambda words: configs_of(words)[-1])
def test_the_command_in_a_configs_head_trains(words: tuple[str, ...], tmp_path: Path, phantoms: Path) -> None:
    named = configs_of(words)
    layout = next((Path(name).stem for name in named if name.startswith("data/")), None)
    if "--data.roco_root" in words:
        data = [f"--data.roco_root={phantoms / 'roco'}"]
    elif "--data.root" in words:
        data = [f"--data.root={phantoms / str(layout)}"]
    else:  # of retrieval enough that fifteen negatives differ from a pair's own
        data = [f"--data.root={tmp_path / 'data'}", f"--data.size={30 if named[0] == 'retrieval.yaml' else 12}"]
    absent = absent_modality(named[-1])
    if absent:
        data += [f"--model.encoder.{absent}=null", f"--model.encoder.{absent}_options={{}}"]
    last = fit(tmp_path / "runs", named, *data)
    assert step(last) == 1
    if absent:
        weights = torch.load(last, weights_only=True)["state_dict"]
        assert not [key for key in weights if key.startswith(f"encoder.{absent}")]


def absent_modality(name: str) -> str | None:
    """The modality that a baseline of one modality does without."""
    model = yaml.safe_load((CONFIGS / name).read_text()).get("model", {})
    encoder = model.get("init_args", {}).get("encoder", {})
    return next((key for key in ("vision", "text") if encoder.get(key, key) is None), None)
