"""The recipes in configs/paper against the papers' numbers, which the tables here hold, typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

CONFIGS = Path(__file__).parents[2] / "configs"
PAPER = CONFIGS / "paper"


class Recipe(NamedTuple):
    """One stage on one data set, and the values that its paper or, where that is silent, its released code gives.

    `pairs` a step are over all devices and accumulated micro-batches; `duration` is in epochs, or in steps if said.
    """

    lr: float
    weight_decay: float
    schedule: str
    warmup: float
    duration: tuple[int, str]
    pairs: int
    image_size: int
    text_length: int
    heads: float
    fusion: float
    crop: bool


def epochs(number: int) -> tuple[int, str]:
    return number, "epochs"


UMD_PRETRAIN = {
    "pretrain": Recipe(1e-5, 0.01, "linear", 0.1, (100_000, "steps"), 256, 288, 64, 5, 5, False),
}
UMD_CALIBRATE = {
    "calibrate/vqa_rad": Recipe(1e-5, 0.01, "linear", 0.1, epochs(60), 64, 384, 32, 5, 5, False),
    "calibrate/slake": Recipe(5e-6, 0.01, "linear", 0.1, epochs(25), 32, 384, 32, 5, 5, True),
    "calibrate/vqa_med_2019": Recipe(5e-6, 0.01, "linear", 0.1, epochs(20), 32, 384, 32, 5, 5, True),
    "calibrate/melinda": Recipe(1e-5, 0.01, "linear", 0.1, epochs(30), 16, 384, 128, 5, 5, True),
    "calibrate/roco": Recipe(1e-5, 0.01, "linear", 0.1, epochs(20), 128, 384, 64, 5, 5, True),
}
UMD_DOWNSTREAM = {
    "vqa/vqa_rad": Recipe(5e-6, 0.1, "cosine", 0.1, epochs(60), 64, 384, 32, 50, 5, False),
    "vqa/slake": Recipe(5e-6, 0.01, "cosine", 0.1, epochs(25), 32, 384, 32, 50, 5, True),
    "vqa/vqa_med_2019": Recipe(5e-6, 0.1, "linear", 0.1, epochs(20), 32, 384, 32, 50, 5, True),
    "classification/melinda": Recipe(5e-6, 0.01, "cosine", 0.1, epochs(30), 16, 384, 128, 10, 5, True),
    "retrieval/roco": Recipe(5e-6, 0.1, "cosine", 0.1, epochs(20), 128, 384, 64, 5, 5, True),
}
# GGP gives lr, batch size, epochs, the pre-training's warm-up and the fine-tuning's image size; most of the rest is
# ALBEF's, crops as in UMD.
GGP = {
    "contrastive_pretrain": Recipe(3e-4, 0.02, "cosine", 0.05, epochs(30), 32, 256, 64, 1, 1, True),
    "vqa_generation/vqa_rad": Recipe(3e-5, 0.02, "cosine", 0.05, epochs(40), 32, 384, 32, 1, 1, False),
    "vqa_generation/slake": Recipe(3e-5, 0.02, "cosine", 0.05, epochs(40), 32, 384, 32, 1, 1, True),
}
PAPERS = {**UMD_PRETRAIN, **UMD_CALIBRATE, **UMD_DOWNSTREAM, **GGP}


def settings(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PAPER / f"{name}.yaml").read_text())
    return content


def test_the_table_has_every_recipe() -> None:
    names = {path.relative_to(PAPER).with_suffix("").as_posix() for path in PAPER.rglob("*.yaml")}
    assert names == {*PAPERS, "encoders", "ggp_encoders"}


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_has_its_papers_numbers(name: str) -> None:
    recipe = settings(name)
    model, data, trainer = recipe["model"]["init_args"], recipe["data"]["init_args"], recipe["trainer"]
    optimizer = model["optimizer"]
    steps = trainer.get("max_steps")
    if steps is not None:
        assert trainer["max_epochs"] == -1, "the epochs of the stage's own config would end it earlier"
    found = Recipe(
        lr=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
        schedule=optimizer["schedule"],
        warmup=optimizer["warmup_ratio"],
        duration=epochs(trainer["max_epochs"]) if steps is None else (steps, "steps"),
        pairs=trainer["devices"] * data["batch_size"] * trainer.get("accumulate_grad_batches", 1),
        image_size=model["encoder"]["image_size"],
        text_length=data["text_length"],
        heads=optimizer["head_multiplier"],
        fusion=optimizer["fusion_multiplier"],
        crop=data["random_resized_crop"],
    )
    assert found == PAPERS[name]


# Pairs to train on, as the papers and the data sets' own count them: ROCO's radiology images, MedICaT's without 2,000
# for validation and test, VQA-RAD's usual training rows, SLAKE's English questions, 80 % of MELINDA.
SIZES = {
    "roco": 65_000,
    "medicat": 215_000,
    "roco_medicat": 280_000,
    "vqa_rad": 3_064,
    "slake": 4_919,
    "vqa_med_2019": 12_792,
    "melinda": 4_297,
}
STARTS = [(name, name.rpartition("/")[2]) for name in PAPERS if "/" in name]
STARTS += [("contrastive_pretrain", "roco"), *(("pretrain", data) for data in ("roco", "medicat", "roco_medicat"))]


class Started(Exception):
    """The training would take its first step now."""


class Empty(BoringModel):
    """A module without a task, on batches without content."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches
        self.total = 0.0

    def on_train_start(self) -> None:
        self.total = float(self.trainer.estimated_stepping_batches)
        raise Started

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(range(self.batches), batch_size=None)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize(("name", "data"), STARTS)
def test_a_recipe_starts_on_data_of_the_real_size(name: str, data: str, devices: int, tmp_path: Path) -> None:
    """Lightning refuses some combinations of intervals and sizes, and only once the data is there."""
    stage, recipe = name.partition("/")[0], settings(name)
    base: dict[str, Any] = yaml.safe_load((CONFIGS / f"{stage}.yaml").read_text())
    given = {**base["trainer"], **recipe["trainer"], "devices": 1, "callbacks": None}
    # One process stands for one of the devices: it sees its share of the pairs.
    module = Empty(SIZES[data] // devices // recipe["data"]["init_args"]["batch_size"])
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **given,
    )
    with pytest.raises(Started):
        trainer.fit(module)
    accumulated = trainer.accumulate_grad_batches
    duration, unit = PAPERS[name].duration
    assert module.total == (duration if unit == "steps" else duration * -(-module.batches // accumulated))
