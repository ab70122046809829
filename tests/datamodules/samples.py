"""Tiny data sets in published layouts, written where a test asks for them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.vqa_rad import SINGLE_FILE


def row(number: int, image: str, question: str, answer: object, **more: object) -> dict[str, Any]:
    return {
        "qid": number,
        "phrase_type": "freeform",
        "image_name": image,
        "question": question,
        "answer": answer,
        "answer_type": "CLOSED " if answer in ("yes", "no") else "OPEN",
        "question_type": "PRES",
        **more,
    }


def write_vqa(root: Path, images: int = 6, rows: list[dict[str, Any]] | None = None) -> Path:
    """`images` pictures of 40 x 30 pixels with two training questions each, and one test question about image 0."""
    (root / "images").mkdir(parents=True)
    content: list[dict[str, Any]] = []
    for number in range(images):
        Image.new("RGB", (40, 30), (number * 20, 0, 0)).save(root / "images" / f"{number}.png")
        content.append(row(number, f"{number}.png", f"is there lesion number {number}?", "yes"))
        content.append(row(number, f"{number}.png", f"what is in image {number}?", f"organ {number}"))
    test = {"phrase_type": "test_freeform", "question_frame": "Is a lesion seen?"}
    content.append(row(99, "0.png", "Do you see a lesion?", "no", **test))
    (root / SINGLE_FILE).write_text(json.dumps(content + (rows or [])))
    return root


def picture(path: Path, seed: int, side: int = 48) -> None:
    """A smooth picture, unlike that of any other seed: eight by eight grey values, enlarged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC).save(path)


def write_medpix(root: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """The lines of each split, by its name in MedPix's files, and a picture for each `image` among them."""
    (root / "splitted_dataset").mkdir(parents=True)
    for name, lines in splits.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / "splitted_dataset" / f"descriptions_{name}.jsonl").write_text(text)
        for line in lines:
            if line.get("image"):
                picture(root / "images" / f"{line['image']}.png", int(str(line["image"]).rpartition("synpic")[2]))
    return root


def medpix_line(number: int, caption: object, **more: object) -> dict[str, Any]:
    """A line for image `number`."""
    described = {"Caption": caption, "Plane": "Axial", "Modality": "CT w/contrast (IV)"}
    return {"image": f"MPX1_synpic{number}", "Description": described, "Location": "Brain and Neuro", **more}


def write_rocov2(root: Path, splits: Mapping[str, Sequence[tuple[str, str]]]) -> Path:
    """The ids and captions of each split, by its name in ROCOv2's files, with a picture for each."""
    for seed, (name, rows) in enumerate(splits.items()):
        (root / name).mkdir(parents=True)
        with (root / f"{name}_captions.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("ID", "Caption"), *rows])
        for number, (image, _) in enumerate(rows):
            picture(root / name / f"{image}.jpg", 1000 * seed + number)
    return root
