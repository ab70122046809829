"""What else a user waits for: pictures from their files, and pairs that retrieval scores."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from umd.bench.cases import Case
from umd.bench.measured import WARM_UP, own_parts, part_of, train
from umd.bench.profiler import REFERENCE

PHOTOGRAPH = (1024, 768)
"""Pixels of the pictures that are read, about those of a radiograph on a web page."""

BATCH = 16


def write_photographs(folder: Path, count: int = 48) -> None:
    """JPEG files with a table of captions, for `OwnCaptions`; smooth noise, which compresses as radiographs do."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "caption"])
            for number in range(count):
                name = f"{split}{number}.jpg"
                coarse = random.integers(0, 256, (24, 32), dtype=np.uint8)
                image = Image.fromarray(coarse).resize(PHOTOGRAPH, Image.Resampling.BICUBIC)
                grain = random.normal(0, 4, (PHOTOGRAPH[1], PHOTOGRAPH[0]))
                noisy = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / name, quality=90)
                table.writerow([name, f"a picture of noise number {number}"])


def pictures(folder: Path, image_size: int, options: tuple[str, ...] = ()) -> float:
    """JPEG files that a CPU-second decodes, transforms and puts into batches, in the training's own process.

    Args:
        folder: with the files of `write_photographs`.
        image_size: that training asks for, in pixels.
        options: more of the data module's, as typed.
    """
    size = ("--model.encoder.image_size", str(image_size), "--data.batch_size", str(BATCH), "--data.num_workers", "0")
    case = Case("pictures", ("pretrain.yaml", "data/own_captions.yaml"), ("--data.root", str(folder), *size, *options))
    steps = train(case, 3, with_reference=False)["steps"][1:3]
    data = [sum(spent[0] for action, spent in step.items() if part_of(action) == "data") for step in steps]
    return float(BATCH / min(data))


def pairs(size: int, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """Retrieval's closing test on a tenth of `size` phantom images and their texts, every pair scored.

    Returns:
        pairs, CPU seconds for all, and pairs for each CPU-second of the reference's step.
    """
    case = Case("retrieval", ("retrieval.yaml",), ("--data.size", str(size), *options), test=True)
    steps = train(case, WARM_UP + 1, with_reference=True)["steps"]
    scored = sum(
        spent[0]
        for step in steps
        for action, spent in own_parts(step).items()
        if action == "[LightningModule]Retrieval.on_test_epoch_end"
    )
    reference = min(step[REFERENCE][0] for step in steps[WARM_UP:] if REFERENCE in step)
    count = (size // 10) ** 2
    return {"pairs": count, "cpu": scored, "pairs_per_reference_step": count / scored * reference}
