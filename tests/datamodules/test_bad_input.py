"""What a user of VQA-RAD and of SLAKE is told about files that are not as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules import SLAKE, VQARAD, VQADataModule
from datamodules.vqa_rad import SINGLE_FILE

VQA_RAD_ROW = {
    "qid": 1,
    "phrase_type": "freeform",
    "image_name": "a.jpg",
    "answer_type": "OPEN",
    "question_type": "PRES",
}
SLAKE_ROW = {"qid": 1, "img_name": "a.jpg", "q_lang": "en", "answer_type": "OPEN", "content_type": "Position"}


@pytest.fixture(params=["vqa_rad", "slake"])
def data_set(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[VQADataModule, Path, dict[str, Any], str]:
    """A data module, its training file, a row without question and answer, and the key of the image."""
    is_slake = request.param == "slake"
    images = tmp_path / ("imgs" if is_slake else "images")
    images.mkdir()
    Image.effect_noise((60, 60), 50).save(images / "a.jpg")
    (images / "cut.jpg").write_bytes((images / "a.jpg").read_bytes()[:500])
    if is_slake:
        return SLAKE(str(tmp_path), validation_fraction=0), tmp_path / "train.json", SLAKE_ROW, "img_name"
    return VQARAD(str(tmp_path), validation_fraction=0), tmp_path / SINGLE_FILE, VQA_RAD_ROW, "image_name"


def test_unusable_rows_are_one_warning(data_set: tuple[VQADataModule, Path, dict[str, Any], str]) -> None:
    data, file, row, image = data_set
    good = {**row, "question": "which side?", "answer": "left"}
    without_type = {key: value for key, value in good.items() if key != "answer_type"}
    rows = [good, {**good, "question": " "}, row, {**good, "answer": ""}, without_type, {**good, image: "cut.jpg"}, 7]
    file.write_text(
        json.dumps([entry | {"qid": place} if isinstance(entry, dict) else entry for place, entry in enumerate(rows)])
    )
    with pytest.warns(UserWarning) as caught:
        data.records("train")
    (message,) = [str(warning.message) for warning in caught]
    assert "2 x row without a question, left out" in message
    assert "1 x row without an answer, left out" in message
    assert "1 x row whose answer_type is neither OPEN nor CLOSED, left out" in message
    assert f"1 x entry that is no row, left out: {file.name}, entry 6" in message
    assert "1 x train row left out: image: " in message and "cut.jpg" in message
    assert len(data.records("train")) == 1


def test_a_column_that_all_rows_lack_is_an_error(data_set: tuple[VQADataModule, Path, dict[str, Any], str]) -> None:
    data, file, row, _ = data_set
    file.write_text(json.dumps([{**row, "question": "which side?"}] * 3))
    with pytest.raises(ValueError, match=r"the train split has no usable row .* 3 x row without an answer, left out"):
        data.records("train")


def test_a_file_that_is_not_utf8_is_named(data_set: tuple[VQADataModule, Path, dict[str, Any], str]) -> None:
    data, file, row, _ = data_set
    text = json.dumps([{**row, "question": "na?ve", "answer": "left"}])
    file.write_bytes(text.encode().replace(b"na?ve", b"na\xefve"))
    with pytest.raises(ValueError, match=f"{file.name} is not a JSON file: .*utf-8"):
        data.records("train")
