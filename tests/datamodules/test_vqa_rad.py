from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest

from datamodules import VQARAD
from datamodules.answers import ceiling
from datamodules.problems import Problems
from datamodules.vqa_rad import SINGLE_FILE, TEST_FILE, TRAIN_FILE
from umd.files import UserError

Form = Literal["single", "split"]


def module(root: Path, form: Form, protocol: Literal["clean", "paper"], fraction: float = 0.0) -> VQARAD:
    return VQARAD(str(root), annotations=form, protocol=protocol, validation_fraction=fraction)


def copy_split_files(source: Path, root: Path) -> Path:
    root.mkdir()
    for name in (TRAIN_FILE, TEST_FILE):
        shutil.copyfile(source / name, root / name)
    (root / "images").symlink_to(source / "images")
    return root


@pytest.mark.parametrize("form", ["single", "split"])
def test_counts_of_the_published_files(shared_data: Path, form: Form) -> None:
    root = shared_data / "vqa_rad"
    paper, clean = module(root, form, "paper"), module(root, form, "clean")
    test = clean.records("test")
    free = [record for record in test if not record.has_twin]
    assert (len(paper.records("train")), len(clean.records("train"))) == (3064, 2772)
    assert sum(record.closed for record in test) == 272
    assert sum(not record.closed for record in test) == 179
    assert (len(free), sum(record.closed for record in free)) == (165, 89)
    assert not clean.has_split("validation") and clean.val_dataloader() == []
    assert paper.records("validation") == paper.records("test") == test
    assert set(clean.answers) <= {record.answer for record in clean.records("train")} < set(paper.answers)
    # 74.1 % are reached by lower-casing alone; normalising answers merges a few more.
    assert 74.1 <= ceiling([record.answer for record in test], clean.answers) < 75
    assert ceiling([record.answer for record in test], paper.answers) == 100


def test_distinct_published_answers(shared_data: Path) -> None:
    rows = [row for name in (TRAIN_FILE, TEST_FILE) for row in json.loads((shared_data / "vqa_rad" / name).read_text())]
    assert len({str(row["answer"]).lower() for row in rows}) == 517


def test_both_forms_give_the_same_rows(shared_data: Path) -> None:
    single, split = (module(shared_data / "vqa_rad", form, "clean", 0.1) for form in ("single", "split"))
    for name in ("train", "validation", "test"):
        assert single.records(name) == split.records(name)


def test_validation_shares_no_image_with_training(shared_data: Path) -> None:
    data = VQARAD(str(shared_data / "vqa_rad"), seed=1)
    images = {name: {row.image for row in data.records(name)} for name in ("train", "validation")}
    assert not images["train"] & images["validation"]
    assert len(images["validation"]) == round(0.1 * len(images["train"] | images["validation"]))
    assert len(data.records("train")) + len(data.records("validation")) == 2772
    other_seed = VQARAD(str(shared_data / "vqa_rad"), seed=2)
    assert other_seed.records("validation") == data.records("validation")


def test_a_split_file_with_other_questions_is_an_error(shared_data: Path, tmp_path: Path) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    rows = json.loads((root / TRAIN_FILE).read_text())
    (root / TRAIN_FILE).write_text(json.dumps(rows[::-1], indent=1))
    assert len(module(root, "split", "clean").records("train")) == 2772  # order and layout do not matter
    rows[7]["question"], rows[9]["image_name"] = "What is it?", rows[0]["image_name"]
    (root / TRAIN_FILE).write_text(json.dumps(rows))
    told = rf"2 of 3064 rows have another image or question.*\(qid {rows[7]['qid']}, {rows[9]['qid']}\)"
    with pytest.raises(ValueError, match=told):
        module(root, "split", "paper").records("train")


def test_a_part_of_the_split_files_and_other_answers_are_read(shared_data: Path, tmp_path: Path) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    rows = json.loads((root / TRAIN_FILE).read_text())
    whole = {row.sample_id: row for row in module(root, "split", "clean").records("train")}
    rows[0]["answer"], rows[2]["question"] = "something else", None
    del rows[1]["answer"], rows[3]["qid"]
    (root / TRAIN_FILE).write_text(json.dumps(rows[:600]))
    problems = Problems("VQA-RAD")
    part = module(root, "split", "clean").read(problems)["train"]
    odd = {str(row.get("qid")) for row in rows[1:4]}
    assert {row.sample_id for row in part} == whole.keys() & {str(row.get("qid")) for row in rows[:600]} - odd
    assert part[0].answer == "something else" and sum(problems.counts.values()) == 3


def test_published_validation_file_is_used_under_paper_only(shared_data: Path, tmp_path: Path) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    shutil.copyfile(root / TEST_FILE, root / "valset.json")
    paper = module(root, "split", "paper")
    assert sum(record.has_twin for record in paper.records("validation")) == 286
    assert not module(root, "split", "clean").has_split("validation")


def test_wrong_root_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"absent for images/ and '{SINGLE_FILE}'.*no such folder"):
        VQARAD(str(tmp_path / "absent")).setup("fit")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"trainset\.json and testset\.json; it holds notes\.txt"):
        VQARAD(str(tmp_path)).setup("fit")
    (tmp_path / SINGLE_FILE).write_text('[{"qid": 1},')
    with pytest.raises(ValueError, match=f"{SINGLE_FILE} is not a JSON file.*line 1"):
        VQARAD(str(tmp_path)).setup("fit")
