"""The published layouts: the same bytes every time, needing image and text."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules import SLAKE
from datamodules.phantom import layouts
from datamodules.phantom.layouts import write_melinda, write_roco, write_slake, write_vqa_rad
from datamodules.phantom.studies import MODALITIES, draw_splits

TWO = {"train": 8, "test": 3}
THREE = {"train": 8, "validation": 3, "test": 3}
Row = dict[str, Any]


@pytest.fixture
def blank_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the annotations matter."""
    monkeypatch.setattr(layouts, "render", lambda study: np.zeros((8, 8), dtype=np.uint8))


def digest(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def single_file(root: Path) -> list[Row]:
    rows: list[Row] = json.loads((root / "VQA_RAD Dataset Public.json").read_text())
    return rows


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        write_vqa_rad(draw_splits(TWO, seed), tmp_path / name, seed=seed)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert not set(digest(tmp_path / "one").values()) & set(digest(tmp_path / "other").values())


def test_vqa_rad_layout(tmp_path: Path) -> None:
    splits = draw_splits(TWO, seed=0)
    write_vqa_rad(splits, tmp_path)
    rows = single_file(tmp_path)
    assert [row["qid"] for row in rows] == list(range(66))
    assert {row["phrase_type"] for row in rows} == {"freeform", "para", "test_freeform", "test_para"}
    assert {row["image_organ"] for row in rows} == {"HEAD", "CHEST", "ABD"}
    assert {row["answer_type"] for row in rows} == {"OPEN", "CLOSED"}
    assert any(isinstance(row["answer"], int) for row in rows)
    framed = [row["question_frame"] != "NULL" for row in rows if row["phrase_type"].startswith("test")]
    assert any(framed) and not all(framed)
    images = {path.name for path in (tmp_path / "images").iterdir()}
    assert images == {row["image_name"] for row in rows}
    with Image.open(tmp_path / "images" / rows[0]["image_name"]) as image:
        assert (image.size, image.mode) == ((128, 128), "L")
    train, test = (
        {digest(tmp_path)[f"images/{row['image_name']}"] for row in rows if row["phrase_type"].startswith(kind)}
        for kind in (("freeform", "para"), "test")
    )
    assert (len(train), len(test), train & test) == (8, 3, set())


def test_slake_layout(tmp_path: Path) -> None:
    write_slake(draw_splits(THREE, seed=0), tmp_path, questions=4)
    rows = json.loads((tmp_path / "validate.json").read_text())
    assert len(rows) == 12 and {row["q_lang"] for row in rows} == {"en"}
    assert all((tmp_path / "imgs" / row["img_name"]).is_file() for row in rows)
    data = SLAKE(str(tmp_path), batch_size=4)
    assert [len(data.records(split)) for split in ("train", "validation", "test")] == [32, 12, 12]


def test_roco_layout(tmp_path: Path) -> None:
    write_roco(draw_splits(THREE, seed=0), tmp_path)
    for split, size in THREE.items():
        folder = tmp_path / split / "radiology"
        lines = [line.split("\t") for line in (folder / "captions.txt").read_text().splitlines()]
        assert [len(line) for line in lines] == [2] * size
        assert {f"{name}.jpg" for name, _ in lines} == {path.name for path in (folder / "images").iterdir()}


def test_melinda_layout(tmp_path: Path, blank_images: None) -> None:
    splits = draw_splits({**THREE, "train": 288}, seed=0)
    write_melinda(splits, tmp_path)
    with (tmp_path / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 288
    assert all((tmp_path / "melinda_images" / row["figure_file"]).is_file() for row in rows)
    classes = [len({row[key] for row in rows}) for key in ("i_meth", "p_meth", "i_meth_label", "p_meth_label")]
    assert classes == [8, 6, 3, 3]
    assert not any(name.lower() in row["caption"].lower().split() for row in rows for name in MODALITIES)


def test_neither_image_nor_question_answers_alone(tmp_path: Path, blank_images: None) -> None:
    """The best that one could do without the image, or without the question, learnt on train, scored on test."""
    splits = draw_splits({"train": 900, "test": 150}, seed=0)
    write_vqa_rad(splits, tmp_path)
    rows = single_file(tmp_path)
    names = list(dict.fromkeys(row["image_name"] for row in rows))
    studies = dict(zip(names, [*splits["train"], *splits["test"]], strict=True))
    train = [row for row in rows if not row["phrase_type"].startswith("test")]
    test = [row for row in rows if row["phrase_type"].startswith("test")]
    assert (len(train), len(test)) == (5400, 900)

    def oracle(key: Callable[[Row], Hashable], learnt: list[Row]) -> float:
        answers: dict[Hashable, Counter[Any]] = defaultdict(Counter)
        for row in learnt:
            answers[key(row)][row["answer"]] += 1
        guesses = {known: count.most_common(1)[0][0] for known, count in answers.items()}
        return float(np.mean([guesses.get(key(row)) == row["answer"] for row in test]))

    text_only = oracle(lambda row: row["question"], train)
    image_only = oracle(lambda row: studies[row["image_name"]].attributes, train)
    best_constant_of_each_test_image = oracle(lambda row: row["image_name"], test)
    joint = oracle(lambda row: (studies[row["image_name"]].attributes, row["question"]), train + test)
    assert text_only < 0.45
    assert image_only < 0.35
    assert best_constant_of_each_test_image < 0.45
    assert joint == 1.0

    counts: dict[str, Counter[Any]] = defaultdict(Counter)
    for row in train:
        if row["answer_type"] == "CLOSED":
            counts[row["question"]][row["answer"]] += 1
    for text, count in counts.items():
        assert len(count) == 2 and max(count.values()) <= 0.6 * count.total(), (text, count)


def test_a_split_that_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="splits must be train, test, got train"):
        write_vqa_rad({"train": []}, tmp_path)
