"""Copies of the data sets in forms that people have, as they lie in shared/cases, and as written here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules import MELINDA, SLAKE, VQARAD, ImageTextDataModule, RadiologyCaptions, VQADataModule, VQAMed2019
from datamodules.records import Split
from datamodules.vqa_rad import SINGLE_FILE, TEST_FILE, TRAIN_FILE
from umd.files import UserError


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> Path:
    """The folder of cases, beside that of the data."""
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"cases not found: no folder {folder}")
    return folder


def sizes(data: ImageTextDataModule[Any]) -> dict[Split, int]:
    """The usable rows of each split; a row that is left out fails the test by its warning."""
    data.setup()
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return {split: len(data.records(split)) for split in splits if data.has_split(split)}


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file, read plainly."""
    return list(json.loads(path.read_text()))


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("case", ["m2i2_question_id", "own_vqa_split", "hf_no_answer_type"])
def test_the_rows_of_two_files_are_read(cases: Path, case: str) -> None:
    root = cases / case
    train, test = (len(rows(root / name)) for name in (TRAIN_FILE, TEST_FILE))
    paper = VQARAD(str(root), protocol="paper")
    assert sizes(paper) == {"train": train, "validation": test, "test": test}
    clean = sizes(VQARAD(str(root)))
    assert clean["train"] + clean["validation"] == train - int(paper_twins(paper)) and clean["test"] == test


def paper_twins(data: VQADataModule) -> int:
    """The training rows that clean drops."""
    return sum(record.has_twin for record in data.records("train"))


@pytest.mark.filterwarnings("error::UserWarning")
def test_twins_are_known_or_found_by_text(cases: Path) -> None:
    assert "twins" not in VQARAD(str(cases / "m2i2_question_id")).description
    own = VQARAD(str(cases / "own_vqa_split"), protocol="paper")
    own.setup()
    assert own.description["twins"] == "found by text alone, these are not the published files"
    # The same 95 rows in three forms: their twins are the same.
    names = ("osf_vqa_rad", "m2i2_question_id", "hf_no_answer_type")
    data = [VQARAD(str(cases / name), protocol="paper") for name in names]
    found = [[record.question for record in each.records("train") if record.has_twin] for each in data]
    assert found[0] and found[0] == found[1] == found[2]


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_original_file_beside_the_images_as_osf_calls_them(cases: Path) -> None:
    root = cases / "osf_vqa_rad"
    original = rows(root / SINGLE_FILE)
    test = sum(row["phrase_type"].startswith("test") for row in original)
    framed = sum(row["question_frame"] not in (None, "NULL", "") for row in original)
    train = len(original) - test + framed
    assert sizes(VQARAD(str(root), protocol="paper")) == {"train": train, "validation": test, "test": test}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_slake_of_the_hub(cases: Path, protocol: Any) -> None:  # noqa: ANN401
    root = cases / "hf_slake"
    assert sizes(SLAKE(str(root), protocol=protocol)) == {"train": 92, "validation": 27, "test": 28}
    assert [len(rows(root / f"{name}.json")) for name in ("train", "validation", "test")] == [92, 27, 28]


@pytest.mark.filterwarnings("error::UserWarning")
def test_roco_whose_validation_folder_is_called_valid(cases: Path) -> None:
    root = cases / "roco_valid_folder"
    names: Mapping[Split, str] = {"train": "train", "validation": "valid", "test": "test"}
    lines = {
        split: len((root / "roco" / name / "radiology" / "captions.txt").read_text().splitlines())
        for split, name in names.items()
    }
    assert sizes(RadiologyCaptions(roco_root=str(root / "roco"))) == lines and min(lines.values()) > 0


def test_test_images_that_are_missing_are_one_line(cases: Path) -> None:
    data = VQARAD(str(cases / "test_images_missing"))
    with pytest.raises(UserError, match=r"the test split has no usable row .* 25 x test row left out: image: no such"):
        data.setup("test")


def test_test_questions_of_vqa_med_without_answers(cases: Path) -> None:
    root = cases / "vqamed_test_without_answers"
    data = VQAMed2019(str(root))
    folder = "ImageClef-2019-VQA-Med-{}/QAPairsByCategory"
    for split, name in (("train", "Training"), ("validation", "Validation")):
        lines = [line for path in (root / folder.format(name)).iterdir() for line in path.read_text().splitlines()]
        assert len(data.records(split)) == len(lines) > 0  # type: ignore[arg-type]
    (test,) = data.read(data._problems)["test"]
    assert (test.question, test.answer) == ("what is the plane?", "")


def write_two_files(root: Path, images: str, **change: object) -> Path:
    """Three questions each about three images, in the field's two files; `change` sets or (None) drops keys."""
    (root / images).mkdir(parents=True)
    for name in "abc":
        Image.new("L", (9, 9)).save(root / images / f"{name}.jpg")
    for file, word in (("train.json", "seen"), ("test.json", "asked")):
        content = [
            {"qid": number, "image_name": f"{name}.jpg", "question": f"is it {word} {number}?", "answer": answer}
            for name in "abc"
            for number, answer in enumerate(("yes", "no", "left"))
        ]
        for number, row in enumerate(content):
            row |= {"qid": 1 + number, "answer_type": "OPEN" if row["answer"] == "left" else "CLOSED"}
            for key, value in change.items():
                row[key] = value
                if value is None:
                    del row[key]
        (root / file).write_text(json.dumps(content))
    return root


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("change", [{}, {"qid": None}, {"answer_type": None}, {"answer_type": ""}])
def test_small_files_of_ones_own(tmp_path: Path, change: dict[str, object]) -> None:
    root = write_two_files(tmp_path, "VQA_RAD Image Folder", **change)
    data = VQARAD(str(root), validation_fraction=0)
    assert sizes(data) == {"train": 9, "test": 9}
    assert [record.closed for record in data.records("test")] == [True, True, False] * 3
    assert len({record.sample_id for record in data.records("train")}) == 9
    told = data.description.get("answer types")
    assert told == ("none given, closed is what is answered yes or no" if "answer_type" in change else None)


@pytest.mark.filterwarnings("error::UserWarning")
def test_answer_types_that_some_rows_lack_are_counted(tmp_path: Path) -> None:
    root = write_two_files(tmp_path, "images")
    content = rows(root / "test.json")
    del content[1]["answer_type"], content[2]["answer_type"]
    (root / "test.json").write_text(json.dumps(content))
    data = VQARAD(str(root), protocol="disjoint", validation_fraction=0)
    data.setup("test")
    told = "not given for 2 of 9 rows, closed is what is answered yes or no"
    assert data.description["answer types"] == told


def test_a_validation_file_of_ones_own_is_read_unless_it_is_the_test_split(tmp_path: Path) -> None:
    root = write_two_files(tmp_path, "images")
    content = rows(root / "test.json")
    (root / "valset.json").write_text(json.dumps(content[:4]))
    data = VQARAD(str(root), validation_fraction=0)
    with pytest.warns(UserWarning, match=r"protocol clean: all its questions are test questions: valset\.json"):
        assert sizes(data) == {"train": 9, "test": 9}
    (root / "valset.json").write_text(json.dumps([{**row, "question": f"other {row['question']}"} for row in content]))
    assert sizes(VQARAD(str(root))) == {"train": 9, "validation": 9, "test": 9}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", ["dev", "Valid", "validation"])
def test_other_names_of_files_and_folders(tmp_path: Path, name: str) -> None:
    question = {"img_name": "a.jpg", "q_lang": "en", "question": "is it?", "answer": "yes", "answer_type": "CLOSED"}
    slake, melinda = tmp_path / "slake", tmp_path / "melinda"
    for root in (slake, melinda):
        (root / "images").mkdir(parents=True)
        Image.new("L", (9, 9)).save(root / "images" / "a.png")
    for split in ("training", name):
        (slake / f"{split}.json").write_text(json.dumps([question] * 2))
        (melinda / f"{split}.csv").write_text("figure_file,caption,p_meth_label\na.jpg,a blot,western\n")
    assert sizes(SLAKE(str(slake))) == {"train": 2, "validation": 2}
    assert sizes(MELINDA(str(melinda))) == {"train": 1, "validation": 1}
