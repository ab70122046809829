from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest

from datamodules import SLAKE, VQARAD
from datamodules.answers import ceiling
from datamodules.problems import Problems
from datamodules.vqa import Protocol
from datamodules.vqa_rad import SINGLE_FILE, TEST_FILE, TRAIN_FILE
from umd.files import UserError

Form = Literal["single", "split"]


def module(root: Path, form: Form, protocol: Protocol, fraction: float = 0.0) -> VQARAD:
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
    assert 74.1 <= ceiling([record.accepted for record in test], clean.answers) < 75
    assert ceiling([record.accepted for record in test], paper.answers) == 100


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


def test_order_and_layout_of_the_split_files_do_not_matter(shared_data: Path, tmp_path: Path) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    published = module(root, "split", "clean")
    rows = json.loads((root / TRAIN_FILE).read_text())
    (root / TRAIN_FILE).unlink()
    (root / "train.json").write_text(json.dumps(rows[::-1], indent=1))
    again = module(root, "split", "clean")
    assert again.records("train") == published.records("train") and "twins" not in again.description


@pytest.mark.parametrize("change", ["number", "image", "id key", "case"])
def test_copies_of_the_published_rows_are_known_by_what_they_ask(
    shared_data: Path, tmp_path: Path, change: str
) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    for name in (TRAIN_FILE, TEST_FILE):
        rows = json.loads((root / name).read_text())
        for row in rows:
            if change == "number":
                del row["qid"]
            elif change == "image":
                row["image_name"] = row["image_name"].removesuffix(".jpg")
            elif change == "id key":
                row["question_id"] = row.pop("qid")
            else:
                row["question"] = f" {row['question'].upper()}"
        (root / name).write_text(json.dumps(rows))
    data = module(root, "split", "clean")
    test = data.records("test")
    assert (len(data.records("train")), len(test)) == (2772, 451)
    assert sum(record.has_twin for record in test) == 286
    assert "twins" not in data.description


def test_rows_that_are_not_the_published_ones_have_twins_by_their_text(shared_data: Path, tmp_path: Path) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    rows = json.loads((root / TRAIN_FILE).read_text())
    asked = json.loads((root / TEST_FILE).read_text())[0]
    listed = {row.sample_id for row in module(root, "split", "clean").records("train")}
    assert {str(row["qid"]) for row in rows[7:10:2]} <= listed
    rows[7]["question"], rows[9] = "What is it?", {**rows[9], "image_name": asked["image_name"]}
    rows[9]["question"] = f"  {asked['question'].upper()} "
    (root / TRAIN_FILE).write_text(json.dumps(rows))
    data = module(root, "split", "clean")
    assert {row.sample_id for row in data.records("train")} == listed - {str(rows[9]["qid"])}
    assert data.description["twins"] == "as published, and by text for the 2 rows that are not the published ones"


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
    kept = whole.keys() & {str(row.get("qid")) for row in rows[:600]} - odd
    assert {row.sample_id for row in part} == kept | {"row4"}
    assert part[0].answer == "something else" and sum(problems.counts.values()) == 2


Row = tuple[str, str, str]


def original_rows(root: Path) -> tuple[list[Row], list[Row]]:
    """(image, question, answer) of the original file's training and test rows, without framed forms."""
    rows = json.loads((root / SINGLE_FILE).read_text())
    sides: tuple[list[Row], list[Row]] = ([], [])
    for entry in rows:
        found = tuple(str(entry[key]).strip() for key in ("image_name", "question", "answer"))
        sides[entry["phrase_type"].startswith("test")].append(found)  # type: ignore[arg-type]
    return sides


@pytest.mark.parametrize("form", ["single", "split"])
def test_hub_has_the_rows_of_the_hub(shared_data: Path, form: Form) -> None:
    root = shared_data / "vqa_rad"
    train, test = original_rows(root)
    assert (len(train), len(set(train)), len(set(train) - set(test)), len(test)) == (1797, 1794, 1793, 451)
    data = module(root, form, "hub")
    found = {(record.image, record.question) for record in data.records("train")}
    assert found == {(f"images/{image}", question) for image, question, _ in set(train) - set(test)}
    assert (len(data.records("train")), len(data.records("test"))) == (1793, 451)
    assert data.description["left out of train"] == "1,267 framed, 3 repeated, 1 equal to a test row"
    assert set(data.answers) == {record.answer for record in data.records("train")}


@pytest.mark.parametrize("form", ["single", "split"])
def test_disjoint_is_clean_without_the_test_images(shared_data: Path, form: Form) -> None:
    root = shared_data / "vqa_rad"
    data, clean = module(root, form, "disjoint"), module(root, form, "clean")
    tested = {record.image for record in data.records("test")}
    assert data.records("train") == [record for record in clean.records("train") if record.image not in tested]
    assert data.records("test") == clean.records("test")
    carved = module(root, form, "disjoint", 0.1)
    images = [{record.image for record in carved.records(split)} for split in ("train", "validation")]
    assert not images[0] & images[1] and len(images[1]) == round(0.1 * len(images[0] | images[1]))


def test_hub_needs_the_published_rows(shared_data: Path, tmp_path: Path) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    rows = json.loads((root / TRAIN_FILE).read_text())
    (root / TRAIN_FILE).write_text(json.dumps([{**row, "question": f"{row['question']}!"} for row in rows]))
    with pytest.raises(UserError, match=r"hub .*/trainset\.json is not the published one"):
        module(root, "split", "hub").setup("fit")
    for row in rows:
        del row["phrase_type"]
    (root / TRAIN_FILE).write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"hub .*/trainset\.json does not say \(phrase_type\)"):
        module(root, "split", "hub").setup("fit")


def test_only_vqa_rad_has_hub_and_disjoint(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"SLAKE: .* 'clean' or 'paper', not 'hub' \('hub' and 'disjoint' are VQA-RAD's"
    ):
        SLAKE(str(tmp_path), protocol="hub")
    with pytest.raises(UserError, match=r"'clean' or 'paper' or 'hub' or 'disjoint', not 'mine'$"):
        VQARAD(str(tmp_path), protocol="mine")  # type: ignore[arg-type]


def test_published_validation_file_is_used_under_paper_only(shared_data: Path, tmp_path: Path) -> None:
    root = copy_split_files(shared_data / "vqa_rad", tmp_path / "copy")
    shutil.copyfile(root / TEST_FILE, root / "valset.json")
    paper = module(root, "split", "paper")
    assert sum(record.has_twin for record in paper.records("validation")) == 286
    clean = module(root, "split", "clean")
    with pytest.warns(UserWarning, match=r"1 x not read under protocol clean, which holds out .* images: valset\.json"):
        clean.records("train")
    assert not clean.has_split("validation")


def test_wrong_root_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"absent for images/ and '{SINGLE_FILE}'.*no such folder"):
        VQARAD(str(tmp_path / "absent")).setup("fit")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"trainset\.json and testset\.json; it holds notes\.txt"):
        VQARAD(str(tmp_path)).setup("fit")
    (tmp_path / SINGLE_FILE).write_text('[{"qid": 1},')
    with pytest.raises(ValueError, match=f"{SINGLE_FILE} is not a JSON file.*line 1"):
        VQARAD(str(tmp_path)).setup("fit")
