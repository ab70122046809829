"""Questions of further data sets among the training rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datamodules import VQARAD
from datamodules.vqa_rad import TEST_FILE, TRAIN_FILE
from tests.datamodules.samples import picture, row
from umd.files import UserError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """VQA-RAD's layout: three rows to train on, one to test on."""
    rows = [row(number, f"synpic{number}.jpg", f"question {number}?", "yes") for number in range(1, 5)]
    root = tmp_path / "vqa_rad"
    (root / "images").mkdir(parents=True)
    for number in range(1, 5):
        picture(root / "images" / f"synpic{number}.jpg", number)
    for name, part in ((TRAIN_FILE, rows[:3]), (TEST_FILE, rows[3:])):
        (root / name).write_text(json.dumps(part))
    return root


@pytest.fixture
def further(tmp_path: Path, own: Path) -> Path:
    """SLAKE's layout: image 9 is that of the other's test question."""
    root = tmp_path / "slake"
    for number in (7, 8, 9):
        picture(root / "imgs" / f"xmlab{number}" / "source.jpg", number)
    (root / "imgs" / "xmlab9" / "source.jpg").write_bytes((own / "images" / "synpic4.jpg").read_bytes())
    for name, numbers in (("train", (7, 9)), ("validate", (8,)), ("test", (8,))):
        rows = [
            {
                "img_name": f"xmlab{number}/source.jpg",
                "question": "Which organ?",
                "answer": f"organ {number}",
                "answer_type": "OPEN",
                "q_lang": "en",
                "content_type": "Organ",
                "qid": number,
            }
            for number in numbers
        ]
        (root / f"{name}.json").write_text(json.dumps(rows))
    return root


def test_training_rows_of_another_data_set_are_added_to_train_alone(own: Path, further: Path) -> None:
    alone = VQARAD(str(own), validation_fraction=0.4)
    both = VQARAD(str(own), validation_fraction=0.4, also_train_on=[f"SLAKE={further}"])
    added = both.records("train")[len(alone.records("train")) :]
    assert both.records("train")[: len(alone.records("train"))] == alone.records("train")
    assert [(record.image, record.answer) for record in added] == [("SLAKE/imgs/xmlab7/source.jpg", "organ 7")]
    assert both.records("validation") == alone.records("validation")
    assert both.records("test") == alone.records("test")
    assert set(both.answers) == {"yes", "organ 7"}
    assert both.description["of SLAKE in train"] == "1"
    both.setup("fit")
    texts = [text for batch in both.train_dataloader() for text in batch.texts]
    assert sorted(texts) == sorted(record.question for record in both.records("train"))


def test_what_is_no_data_set_of_questions_is_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no data set of questions"):
        VQARAD(str(own), also_train_on=[f"MedPixCaptions={tmp_path}"])
    with pytest.raises(UserError, match=r"no such folder \(--data\.also_train_on says"):
        VQARAD(str(own), also_train_on=[f"SLAKE={tmp_path / 'nowhere'}"]).records("train")
