"""VQA-Med-2019: the published questions, and tiny copies of both layouts with images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules import VQAMed2019
from datamodules.problems import Problems
from datamodules.records import Split
from umd.files import UserError

FILES = {
    "modality": "C1_Modality",
    "plane": "C2_Plane",
    "organ": "C3_Organ",
    "abnormality": "C4_Abnormality",
}
PUBLISHED = {
    "train": ("ImageClef-2019-VQA-Med-Training", "Train_images"),
    "val": ("ImageClef-2019-VQA-Med-Validation", "Val_images"),
    "test": ("VQAMed2019Test", "VQAMed2019_Test_Images"),
}
TEST_FILE = "VQAMed2019_Test_Questions_w_Ref_Answers.txt"


def write(root: Path, *, published: bool, lines: dict[str, list[bytes]] | None = None) -> Path:
    """One question a category and split about an image of its split; `lines` adds some, by file name."""
    for split, (long, images) in PUBLISHED.items():
        folder = root / (long if published else split)
        pictures = folder / (images if published else "images")
        pictures.mkdir(parents=True)
        Image.new("L", (9, 9)).save(pictures / f"{split}1.jpg")
        content: dict[str, list[bytes]] = {}
        for category, name in FILES.items():
            if split == "test":
                row = f"{split}1|{category}|which {category} is this?|{category} {split}"
                content.setdefault(TEST_FILE, []).append(row.encode())
            else:
                row = f"{split}1|which {category} is this?|{category} {split}"
                content[f"QAPairsByCategory/{name}_{split}.txt"] = [row.encode()]
        for name, rows in content.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\n".join(rows + (lines or {}).get(path.name, [])))
    return root


@pytest.mark.parametrize("category", list(FILES))
@pytest.mark.parametrize(("split", "short"), [("train", "train"), ("validation", "val"), ("test", "test")])
def test_every_published_row_is_read(shared_data: Path, category: Any, split: Split, short: str) -> None:  # noqa: ANN401
    root = shared_data / "text_only" / "vqa_med_2019"
    if split == "test":
        text = (root / "test" / TEST_FILE).read_text()
        rows = [
            (row[0], row[2], row[3])
            for row in re.findall(r"(?m)^(.*?)\|(.*?)\|(.*?)\|(.+)$", text)
            if row[1] == category
        ]
    else:
        text = (root / short / "QAPairsByCategory" / f"{FILES[category]}_{short}.txt").read_text()
        rows = re.findall(r"(?m)^(.*?)\|(.*?)\|(.+)$", text)
    problems = Problems("VQA-Med-2019")
    records = VQAMed2019(str(root), categories=[category]).read_published(problems)[split]
    assert not problems.counts
    assert [record.sample_id for record in records] == [f"{category}/{row[0].strip()}" for row in rows]
    assert [record.question for record in records] == [row[1].strip() for row in rows]
    assert [record.closed for record in records] == [row[2].strip().lower() in ("yes", "no") for row in rows]
    assert {record.question_type for record in records} == {category}


def test_default_is_three_categories_of_the_published_sizes(shared_data: Path) -> None:
    splits = VQAMed2019(str(shared_data / "text_only" / "vqa_med_2019")).read_published(Problems(""))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 9600, "validation": 1500, "test": 375}
    assert sum("#" in record.answer for record in splits["test"]) == 9


@pytest.mark.parametrize("published", [True, False])
def test_both_layouts_and_both_protocols(tmp_path: Path, published: bool) -> None:
    root = write(tmp_path, published=published)
    data = VQAMed2019(str(root), categories=["plane", "modality"])
    data.setup()
    three = {"train": "train", "validation": "val", "test": "test"}
    for split, short in three.items():
        found = data.records(split)  # type: ignore[arg-type]
        assert [record.answer for record in found] == [f"modality {short}", f"plane {short}"]
    assert data.answers == ("modality train", "plane train")  # clean: of the training split alone
    paper = VQAMed2019(str(root), categories=["plane"], protocol="paper")
    assert set(paper.answers) == {"plane train", "plane val", "plane test"}
    assert len(VQAMed2019(str(root)).records("test")) == 3  # without abnormality
    assert data.description["categories"] == "modality, plane"


def test_a_test_split_without_answers_asks_all_its_questions(tmp_path: Path) -> None:
    root = write(tmp_path, published=True)
    folder = root / "VQAMed2019Test"
    (folder / TEST_FILE).unlink()
    (folder / "VQAMed2019_Test_Questions.txt").write_text("test1|which plane is this?\ntest1|\n")
    problems = Problems("VQA-Med-2019")
    data = VQAMed2019(str(root), categories=["plane"])
    (record,) = data.read_published(problems)["test"]
    assert (record.image, record.question) == (
        "VQAMed2019Test/VQAMed2019_Test_Images/test1.jpg",
        "which plane is this?",
    )
    assert not record.answer and problems.counts == {"line that is not image|question, left out": 1}


def test_other_names_of_splits(tmp_path: Path) -> None:
    root = write(tmp_path, published=False)
    (root / "val").rename(root / "Valid")
    folder = root / "Valid" / "QAPairsByCategory"
    (folder / "C2_Plane_val.txt").rename(folder / "C2_Plane_validation.txt")
    data = VQAMed2019(str(root), categories=["plane"])
    assert [record.answer for record in data.records("validation")] == ["plane val"]
    (folder / "C2_Plane_dev.txt").touch()
    with pytest.raises(UserError, match=r"C2_Plane_dev\.txt and C2_Plane_validation\.txt, which both stand for"):
        VQAMed2019(str(root), categories=["plane"]).setup()


def test_lines_that_cannot_be_used_are_one_warning(tmp_path: Path) -> None:
    train = [
        b"train1|no answer at all",
        b"",
        b"|which?|none",
        b"train1|which?| ",
        b"train1||axial",
        b"train1|\xff|axial",
    ]
    train += [b"cut|which?|axial", b"train1|which?|axial|coronal"]
    lines = {"C2_Plane_train.txt": train, TEST_FILE: [b"test1|colour|which?|red", b"test1|Plane |which?|axial#coronal"]}
    root = write(tmp_path, published=False, lines=lines)
    whole = (root / "train" / "images" / "train1.jpg").read_bytes()
    (root / "train" / "images" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    data = VQAMed2019(str(root), categories=["plane"])
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    (message,) = [str(warning.message) for warning in caught]
    for part in (
        "3 x line that is not image|question|answer, left out: C2_Plane_train.txt:2, C2_Plane_train.txt:4, C2_Plane_",
        "1 x line without an answer, left out: C2_Plane_train.txt:5",
        "1 x line without a question, left out: C2_Plane_train.txt:6",
        "1 x line that is not UTF-8, left out: C2_Plane_train.txt:7",
        "1 x line whose category is none of modality, plane, organ, abnormality, left out: " + TEST_FILE + ":5",
        "plane/cut (train/images/cut.jpg)",
        "1 x question id that occurs again, renamed: plane/test1 to plane/test1#2",
    ):
        assert part in message
    assert len(data.records("train")) == 1
    data.setup("test")
    assert data.description["test questions with several answers, compared as a whole"] == "1"


def test_missing_files_and_wrong_arguments_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "data", published=True)
    folder = root / "ImageClef-2019-VQA-Med-Training" / "QAPairsByCategory"
    (folder / "C3_Organ_train.txt").unlink()
    with pytest.raises(UserError, match=rf"no C3_Organ_train\.txt in {folder}"):
        VQAMed2019(str(root)).setup("fit")
    assert VQAMed2019(str(root), categories=["plane"]).has_split("train")
    with pytest.raises(UserError, match=r"ImageClef-2019-VQA-Med-Training/ \(or train/\).* it holds data"):
        VQAMed2019(str(tmp_path)).setup("fit")
    with pytest.raises(ValueError, match=r"categories must be some of modality, plane, .* not \['colour'\]"):
        VQAMed2019(str(root), categories=["colour"])  # type: ignore[list-item]
