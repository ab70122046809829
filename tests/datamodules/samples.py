"""A tiny data set in VQA-RAD's original layout, written where a test asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
