"""What is true of a row: one answer, several, or none at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules import SLAKE, VQARAD
from datamodules.classification import ClassificationDataModule, ClassificationRecord
from datamodules.problems import Problems
from datamodules.questions import VQARecord, vqa_record
from datamodules.records import Split
from datamodules.vqa_rad import SINGLE_FILE
from tests.datamodules.samples import row, write_vqa
from umd.batch import VQABatch
from umd.files import UserError


def record(**given: object) -> VQARecord:
    found = vqa_record(
        {"question": "where?", "image": "a.png", **given}, Problems("x"), where="x", image_key="image", sample_id="1"
    )
    assert found is not None
    return found


def test_of_several_answers_each_is_accepted_and_the_first_is_trained_on() -> None:
    several = record(answer=["The Left Lung", None, "left lung.", 2, " "], answer_type="OPEN")
    assert several.answer == "left lung" and several.accepted == ("left lung", "2")
    assert several.published_answer == "The Left Lung"
    assert record(answer=["", None]).accepted == record(answer=None).accepted == record().accepted == ()


@pytest.mark.parametrize(
    ("given", "closed", "by_answer"),
    [
        ({"answer": "Yes."}, True, True),
        ({"answer": "left", "answer_type": None}, False, True),
        ({"answer": "no", "answer_type": float("nan")}, True, True),
        ({"answer": "no", "answer_type": " open "}, False, False),
        ({"answer": "left", "answer_type": "CLOSED"}, True, False),
    ],
)
def test_without_an_answer_type_closed_is_what_is_answered_yes_or_no(
    given: dict[str, Any], closed: bool, by_answer: bool
) -> None:
    found = record(**given)
    assert (found.closed, found.closed_by_answer) == (closed, by_answer)


def test_a_question_without_an_answer_is_asked_and_never_trained_on(tmp_path: Path) -> None:
    test = {"phrase_type": "test_freeform"}
    rows = [row(200, "1.png", "which side?", None, **test), row(201, "2.png", "which organ?", None)]
    root = str(write_vqa(tmp_path, rows=rows))
    data = VQARAD(root, validation_fraction=0)
    with pytest.warns(UserWarning, match=r"1 x train row without an answer, left out: 16 \(images/2.png\)"):
        assert len(data.records("train")) == 12
    assert [one.accepted for one in data.records("test")] == [("no",), ()]
    assert data.without_truth("test") == 1 and data.description["test without answers"] == "1 of 2, not counted"
    (batch,) = data.test_dataloader()
    assert isinstance(batch, VQABatch)
    assert batch.accepted == (("no",), ()) and batch.published_answers == ("no", "") and batch.answers == ("no", "")
    summary = VQARAD(root, validation_fraction=0, protocol="paper").summary()
    assert summary.splits["test"]["without_answers"] == 1 and summary.splits["train"]["without_answers"] == 0
    assert "" not in VQARAD(root, protocol="paper").answers
    counted = {group["group"]: group["questions"] for group in summary.facts["test"]["groups"]}
    assert counted == {"open": 0, "closed": 1, "overall": 1, "twin-free": 0}


def test_any_accepted_answer_is_within_reach_and_right_without_looking(tmp_path: Path) -> None:
    asked = row(200, "1.png", "seen?", ["unheard of", "yes"], phrase_type="test_freeform")
    data = VQARAD(str(write_vqa(tmp_path, rows=[asked])), validation_fraction=0)
    groups = {group["group"]: group for group in data.summary().facts["test"]["groups"]}
    # "yes" is the most frequent answer of that type in train.
    assert groups["open"]["ceiling"] == groups["open"]["most_frequent_answer"] == 100


def test_a_test_split_that_has_no_answers_is_no_table(tmp_path: Path) -> None:
    root = write_vqa(tmp_path)
    content = json.loads((root / SINGLE_FILE).read_text())
    content[-1]["answer"] = None
    (root / SINGLE_FILE).write_text(json.dumps(content))
    data = VQARAD(str(root), validation_fraction=0)
    assert data.description == {"data": "VQA-RAD", "protocol": "clean"}
    summary = data.summary()
    assert summary.facts["test"] == {"groups": []} and len(summary.test_rows) == 1
    assert data.description["test without answers"] == "all, not counted"


def test_a_test_split_without_answers_and_images_does_not_stop_a_training(tmp_path: Path) -> None:
    root = write_vqa(tmp_path)
    content = json.loads((root / SINGLE_FILE).read_text())
    content[-1]["image_name"] = "gone.png"
    (root / SINGLE_FILE).write_text(json.dumps(content))
    assert VQARAD(str(root)).has_test_split  # and asking for its rows is an error
    content[-1]["answer"] = None
    (root / SINGLE_FILE).write_text(json.dumps(content))
    data = VQARAD(str(root))
    with pytest.warns(UserWarning, match="there will be no test: the test split has no usable row"):
        assert not data.has_test_split
    assert not data.has_test_split


def test_nothing_is_validated_where_validation_has_no_answers(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "imgs" / "a.png")
    asked = {"img_name": "a.png", "q_lang": "en", "question": "where?", "answer_type": "OPEN"}
    (tmp_path / "train.json").write_text(json.dumps([{**asked, "qid": 1, "answer": "left"}]))
    (tmp_path / "validate.json").write_text(json.dumps([{**asked, "qid": 2}]))
    data = SLAKE(str(tmp_path))
    with pytest.warns(UserWarning, match="the validation split has no answers, so nothing is validated"):
        assert data.val_dataloader() == []


def test_what_is_wrong_with_the_rows_is_said_before_what_cannot_be_carved_of_the_rest(tmp_path: Path) -> None:
    root = write_vqa(tmp_path, images=1)
    content = json.loads((root / SINGLE_FILE).read_text())
    (root / SINGLE_FILE).write_text(json.dumps([*content, row(7, "1.png", " ", "yes")]))
    with pytest.raises(UserError, match=r"cannot carve .* out of 1 image.*1 x row without a question, left out"):
        VQARAD(str(root)).records("train")
    (root / SINGLE_FILE).write_text(json.dumps([{**one, "question": None} for one in content]))
    with pytest.raises(UserError, match=r"the train split has no usable row .* 3 x row without a question"):
        VQARAD(str(root)).records("train")


def test_no_problems_is_never_said_where_rows_were_left_out(tmp_path: Path) -> None:
    root = write_vqa(tmp_path)
    content = json.loads((root / SINGLE_FILE).read_text())
    content[-1]["question"] = None
    (root / SINGLE_FILE).write_text(json.dumps(content))
    data = VQARAD(str(root), validation_fraction=0)
    with pytest.warns(UserWarning, match="1 x row without a question"):
        data.records("train")
    with pytest.raises(UserError, match=r"the test split has no usable row .*1 x row without a question, left out"):
        data.records("test")


class Plates(ClassificationDataModule):
    """Classes of one's own; the test split's are not given."""

    title = "plates"
    layout = "images"

    def read_published(self, problems: Problems) -> dict[Split, list[ClassificationRecord]]:
        labels: dict[Split, tuple[str, ...]] = {"train": ("gel", "", "blot"), "test": ("", "")}
        return {
            split: [ClassificationRecord(str(place), "a.png", "a text", label) for place, label in enumerate(given)]
            for split, given in labels.items()
        }


def test_a_row_without_a_class_is_never_trained_on(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    data = Plates(str(tmp_path))
    with pytest.warns(UserWarning) as caught:
        summary = data.summary()
    assert [str(one.message) for one in caught] == ["plates: 1 x train row without a class, left out: 1 (a.png)"]
    assert data.classes == ("blot", "gel") and summary.splits["test"]["without_classes"] == 2
    assert data.description["test without classes"] == "all, not counted"
    assert summary.facts["test"]["ceiling"] is None


def test_a_look_at_the_test_split_does_not_change_what_a_training_says_of_its_data(tmp_path: Path) -> None:
    root = str(write_vqa(tmp_path))
    looked, other = VQARAD(root, validation_fraction=0), VQARAD(root, validation_fraction=0)
    looked.look_at("test")
    for data in (looked, other):
        data.setup("fit")
    assert looked.description == other.description
    assert looked.records("test") == other.records("test")
