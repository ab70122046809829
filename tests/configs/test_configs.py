"""Every shipped YAML runs: one optimizer step of tiny encoders on phantom data, through the command line's own code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from datamodules.phantom_files import Splits, write_melinda, write_roco, write_slake, write_vqa_rad
from datamodules.phantom_images import render
from datamodules.phantom_studies import draw_splits
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
    # Enough that fifteen negatives differ from a pair's own.
    write_roco(draw_splits({"train": 40, "validation": 4, "test": 4}, seed=0), root / "roco", seed=0)
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


BASES = [
    "calibrate.yaml",
    "classification.yaml",
    "contrastive_pretrain.yaml",
    "pretrain.yaml",
    "retrieval.yaml",
    "vqa.yaml",
    "vqa_generation.yaml",
]
OVERLAYS = {
    "ablation/image_only.yaml": ["vqa.yaml"],
    "ablation/text_only.yaml": ["vqa.yaml"],
    "callbacks/pictures.yaml": ["pretrain.yaml"],
    "data/melinda.yaml": ["classification.yaml"],
    "data/roco.yaml": ["retrieval.yaml"],
    "data/roco_medicat.yaml": ["pretrain.yaml"],
    "data/slake.yaml": ["vqa.yaml"],
    "data/vqa_med_2019.yaml": ["vqa.yaml"],
    "data/vqa_rad.yaml": ["vqa.yaml"],
    "recipe/calibrate_melinda.yaml": ["calibrate.yaml", "data/melinda.yaml"],
    "recipe/calibrate_roco.yaml": ["calibrate.yaml", "data/roco.yaml"],
    "recipe/calibrate_slake.yaml": ["calibrate.yaml", "data/slake.yaml"],
    "recipe/calibrate_vqa_med_2019.yaml": ["calibrate.yaml", "data/vqa_med_2019.yaml"],
    "recipe/calibrate_vqa_rad.yaml": ["calibrate.yaml", "data/vqa_rad.yaml"],
    "recipe/classification_melinda.yaml": ["classification.yaml", "data/melinda.yaml"],
    "recipe/contrastive_pretrain_roco.yaml": ["contrastive_pretrain.yaml", "data/roco_medicat.yaml"],
    "recipe/pretrain.yaml": ["pretrain.yaml", "data/roco_medicat.yaml"],
    "recipe/retrieval_roco.yaml": ["retrieval.yaml", "data/roco.yaml"],
    "recipe/vqa_generation_slake.yaml": ["vqa_generation.yaml", "data/slake.yaml"],
    "recipe/vqa_generation_vqa_rad.yaml": ["vqa_generation.yaml", "data/vqa_rad.yaml"],
    "recipe/vqa_slake.yaml": ["vqa.yaml", "data/slake.yaml"],
    "recipe/vqa_vqa_med_2019.yaml": ["vqa.yaml", "data/vqa_med_2019.yaml"],
    "recipe/vqa_vqa_rad.yaml": ["vqa.yaml", "data/vqa_rad.yaml"],
    "scale/ggp.yaml": ["contrastive_pretrain.yaml"],
    "scale/paper.yaml": ["pretrain.yaml"],
    "scale/small.yaml": ["pretrain.yaml"],
    "small/calibrate.yaml": ["calibrate.yaml", "data/vqa_rad.yaml"],
    "small/classification.yaml": ["classification.yaml", "data/melinda.yaml"],
    "small/pretrain.yaml": ["pretrain.yaml", "data/roco_medicat.yaml"],
    "small/retrieval.yaml": ["retrieval.yaml", "data/roco.yaml"],
    "small/vqa.yaml": ["vqa.yaml", "data/vqa_rad.yaml"],
}
# The overlay, and the modality that its model does not have.
BASELINES = {
    "ablation/image_only_resnet101.yaml": "text",
    "ablation/text_only_lstm.yaml": "vision",
    "ablation/text_only_roberta.yaml": "vision",
    "ablation/text_only_scibert.yaml": "vision",
}


@pytest.mark.parametrize("preset", ["umd", "m3ae", "mae", "clip", "flip"])
def test_every_preset_trains_from_the_base_config(preset: str, tmp_path: Path) -> None:
    given = [f"--data.root={tmp_path / 'data'}", "--data.size=12", f"--model.reconstruction.preset={preset}"]
    assert step(fit(tmp_path / "runs", ["pretrain.yaml"], *given)) == 1


def test_every_config_is_tested() -> None:
    shipped = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    assert shipped == {*BASES, *OVERLAYS, *BASELINES}


@pytest.mark.parametrize("name", BASES)
def test_base_config_trains_on_phantom_data(name: str, tmp_path: Path) -> None:
    # Enough that fifteen negatives differ from a pair's own.
    size = 30 if name == "retrieval.yaml" else 12
    last = fit(tmp_path / "runs", [name], f"--data.root={tmp_path / 'data'}", f"--data.size={size}")
    assert step(last) == 1


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_trains_on_the_layout_that_it_is_for(name: str, tmp_path: Path, phantoms: Path) -> None:
    configs = [*OVERLAYS[name], name]
    layout = next((Path(config).stem for config in configs if config.startswith("data/")), None)
    data = [f"--data.root={phantoms / layout}"] if layout else [f"--data.root={tmp_path / 'data'}", "--data.size=12"]
    assert step(fit(tmp_path / "runs", configs, *data)) == 1


@pytest.mark.parametrize(("name", "absent"), BASELINES.items())
def test_baseline_of_one_modality_trains(name: str, absent: str, tmp_path: Path) -> None:
    data = [f"--data.root={tmp_path / 'data'}", "--data.size=12"]
    without = [f"--model.encoder.{absent}=null", f"--model.encoder.{absent}_options={{}}"]
    last = fit(tmp_path / "runs", ["classification.yaml", name], *data, *without)
    assert step(last) == 1
    assert not [key for key in torch.load(last, weights_only=True)["state_dict"] if key.startswith(f"encoder.{absent}")]
