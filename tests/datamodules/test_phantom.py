"""The phantom: deterministic, in the published layouts, needing image and text, never over others' files."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from datamodules import phantom_files
from datamodules.phantom import PhantomCaptions, PhantomVQA, default_root
from datamodules.phantom_files import (
    STAMP_FILE,
    VERSION,
    Splits,
    build_once,
    write_melinda,
    write_roco,
    write_slake,
    write_vqa_rad,
)
from datamodules.phantom_images import render
from datamodules.phantom_studies import MODALITIES, ORGANS, PLANES, Study, draw_splits, draw_studies
from datamodules.phantom_text import ask, caption
from datamodules.slake import SLAKE
from umd.batch import ImageTextBatch, VQABatch
from umd.files import UserError

TWO = {"train": 8, "test": 3}
THREE = {"train": 8, "validation": 3, "test": 3}
Row = dict[str, Any]


@pytest.fixture
def blank_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the annotations matter."""
    monkeypatch.setattr(phantom_files, "render", lambda study: np.zeros((8, 8), dtype=np.uint8))


def digest(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def single_file(root: Path) -> list[Row]:
    rows: list[Row] = json.loads((root / "VQA_RAD Dataset Public.json").read_text())
    return rows


def bright_blobs(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Connected regions as arrays of (row, column), by flood fill."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        stack, region = [left.pop()], []
        while stack:
            row, column = stack.pop()
            region.append((row, column))
            for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if near in left:
                    left.remove(near)
                    stack.append(near)
        regions.append(np.array(region))
    return regions


def true_answer(study: Study, text: str) -> str:
    """What a reader of the question's words would answer."""
    words = text.rstrip("?").replace("-ray", "ray").lower().split()
    count = len(study.lesions)
    facts = {"modality": study.modality.replace("-", "").lower(), "organ": study.organ, "plane": study.plane}
    values = {"modality": ("ct", "mri", "xray"), "organ": ORGANS, "plane": PLANES, "side": ("left", "right")}
    facts["side"] = study.side
    named = {topic: [word for word in words if word in of] for topic, of in values.items()}
    if "or" in words:
        return next(facts[topic] for topic, found in named.items() if found)
    if words[0] in ("is", "was", "are", "does"):
        if any(named.values()):
            return "yes" if all(facts[topic] in found for topic, found in named.items() if found) else "no"
        return "yes" if count > ("more" in words or "several" in words) else "no"
    for topic, clues in {
        "side": ("side", "where"),
        "count": ("many", "number"),
        "organ": ("part", "region"),
        "plane": ("plane",),
    }.items():
        if any(clue in words for clue in clues):
            return str(count) if topic == "count" else facts[topic]
    return facts["modality"]


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        write_vqa_rad(draw_splits(TWO, seed), tmp_path / name, seed=seed)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert not set(digest(tmp_path / "one").values()) & set(digest(tmp_path / "other").values())


def test_even_a_short_draw_is_balanced() -> None:
    studies = draw_studies(288, seed=5)
    for values in zip(*(study.attributes[:3] for study in studies), strict=True):
        assert set(Counter(values).values()) == {96}
    assert Counter(len(study.lesions) for study in studies) == {0: 72, 1: 72, 2: 72, 3: 72}
    assert not any(study.modality == "X-ray" and study.plane == "axial" for study in studies)


def test_lesions_are_where_and_as_many_as_the_study_says() -> None:
    wrong = []
    for study in draw_studies(96, seed=1):
        change = render(study).astype(int) - render(replace(study, lesions=()))
        small = np.asarray(Image.fromarray(np.clip(change, 0, 255).astype(np.uint8)).resize((64, 64)))
        blobs = bright_blobs(small > 20)
        sides = {"left" if blob[:, 1].mean() < 31.5 else "right" for blob in blobs} or {"neither"}
        wide = all(np.ptp(blob, axis=0).max() >= 4 for blob in blobs)
        if (len(blobs), sides, wide) != (len(study.lesions), {study.side}, True):
            wrong.append(study.attributes)
    assert len(wrong) <= 4, wrong  # a bright lesion beside bright bone is hard to tell by a threshold


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


def test_captions_say_what_the_study_shows() -> None:
    rng = np.random.default_rng(0)
    for study in draw_studies(60, seed=2):
        text = caption(study, rng)
        assert text[0].isupper() and text.endswith(".")
        for fact in (study.organ, study.modality, study.plane):
            assert fact.lower() in text.lower()
        assert (f"{study.side} side" in text) == bool(study.lesions)
        assert any(
            word in text.lower() for word in (("without", "no"), ("one",), ("two",), ("three",))[len(study.lesions)]
        )


def test_answers_are_true() -> None:
    studies = draw_studies(300, seed=6)
    for study, questions in zip(studies, ask(studies, 8, np.random.default_rng(0)), strict=True):
        assert len({question.text for question in questions}) == 8
        for question in questions:
            for text in (question.text, question.rephrase, question.frame):
                assert question.answer.lower().replace("-", "") == true_answer(study, text), (study.attributes, text)


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


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count=-1"):
        draw_studies(-1, seed=0)
    with pytest.raises(ValueError, match="per_image must be from 1 to 8, got 9"):
        ask([], 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="splits must be train, test, got train"):
        write_vqa_rad({"train": []}, tmp_path)
    with pytest.raises(ValueError, match="size must be at least 2, not 1"):
        PhantomVQA(str(tmp_path), size=1)
    with pytest.raises(ValueError, match="phantom_seed must be at least 0, not -1"):
        PhantomCaptions(str(tmp_path), phantom_seed=-1)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="was not written by the phantom generator"):
        PhantomVQA(str(tmp_path), size=6).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_phantom_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    PhantomVQA(str(root), size=6).prepare_data()
    before = digest(root)
    PhantomVQA(str(root), size=6, seed=7, batch_size=2).prepare_data()
    for other in (PhantomVQA(str(root), size=6, phantom_seed=1), PhantomCaptions(str(root), size=6)):
        with pytest.raises(UserError, match="holds another phantom"):
            other.prepare_data()
    assert digest(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_of_two_at_once_the_first_to_finish_wins(tmp_path: Path) -> None:
    root = tmp_path / "below" / "root"

    def fast(folder: Path) -> None:
        (folder / "data").write_text("fast")

    def slow(folder: Path) -> None:
        (folder / "data").write_text("slow")
        build_once(root, {"size": 1}, fast)

    build_once(root, {"size": 1}, slow)
    assert (root / "data").read_text() == "fast"
    assert [path.name for path in root.parent.iterdir()] == ["root"]

    def beaten(folder: Path) -> None:
        build_once(root.with_name("next"), {"size": 2}, lambda other: None)

    with pytest.raises(UserError, match="holds another phantom"):
        build_once(root.with_name("next"), {"size": 1}, beaten)


def test_nothing_is_left_of_a_build_that_failed(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "root", {}, fail)
    assert not list(tmp_path.iterdir())
    build_once(tmp_path / "root", {}, lambda folder: None)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [STAMP_FILE]


def test_the_default_root_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMD_CACHE", str(tmp_path))
    name = f"vqa-12-0-v{VERSION}"
    assert PhantomVQA(size=12).root == default_root(name) == tmp_path / "phantom" / name
    monkeypatch.delenv("UMD_CACHE")
    assert default_root("x") == Path.home() / ".cache" / "umd" / "phantom" / "x"


def test_phantom_vqa(tmp_path: Path) -> None:
    data = PhantomVQA(str(tmp_path / "root"), size=12, batch_size=6)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, VQABatch)
    assert tuple(batch.image.shape) == (6, 3, 64, 64)
    assert not (batch.input_ids == data.tokenizer.unk_token_id).any()
    assert data.description["data"] == "phantom"
    images = {split: {record.image for record in data.records(split)} for split in ("train", "validation", "test")}
    assert [len(names) for names in images.values()] == [11, 1, 2]
    assert not images["test"] & (images["train"] | images["validation"])
    assert {record.has_twin for record in data.records("test")} == {True, False}
    assert set(data.answers) <= {
        "yes",
        "no",
        "ct",
        "mri",
        "x ray",
        *ORGANS,
        *PLANES,
        "left",
        "right",
        "neither",
        *"0123",
    }


def test_phantom_captions(tmp_path: Path) -> None:
    data = PhantomCaptions(str(tmp_path / "root"), size=20, batch_size=5)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, ImageTextBatch) and len(batch) == 5
    assert not (batch.input_ids == data.tokenizer.unk_token_id).any()
    assert data.description == {"data": "phantom", "train": "20", "validation": "2", "test": "2"}


def test_splits_share_no_study() -> None:
    splits: Splits = draw_splits({"train": 50, "test": 50}, seed=0)
    assert not set(splits["train"]) & set(splits["test"])
