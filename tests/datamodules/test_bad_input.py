"""What a user is told about files that are not as published, and how soon."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules import MELINDA, SLAKE, VQARAD, ImageTextDataModule, RadiologyCaptions, VQADataModule, VQAMed2019
from datamodules.problems import Problems
from datamodules.vqa_rad import SINGLE_FILE, TEST_FILE, TRAIN_FILE
from datamodules.vqa_rad_twins import question_digest
from umd.files import UserError

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
    odd_type = {**good, "answer_type": "MAYBE"}
    rows = [good, {**good, "question": " "}, row, {**good, "answer": ""}, odd_type, {**good, image: "cut.jpg"}, 7]
    file.write_text(
        json.dumps([entry | {"qid": place} if isinstance(entry, dict) else entry for place, entry in enumerate(rows)])
    )
    with pytest.warns(UserWarning) as caught:
        data.records("train")
    (message,) = [str(warning.message) for warning in caught]
    assert "2 x row without a question, left out" in message
    assert "1 x train row without an answer, left out" in message
    assert "1 x row whose answer_type is neither OPEN nor CLOSED, left out" in message
    assert f"1 x entry that is no row, left out: {file.name}, entry 6" in message
    assert "1 x train row left out: image: " in message and "cut.jpg" in message
    assert len(data.records("train")) == 1


def test_a_column_that_all_rows_lack_is_an_error(data_set: tuple[VQADataModule, Path, dict[str, Any], str]) -> None:
    data, file, row, _ = data_set
    file.write_text(json.dumps([{**row, "question": "which side?"}] * 3))
    with pytest.raises(
        ValueError, match=r"the train split has no usable row .* 3 x train row without an answer, left out"
    ):
        data.records("train")


def test_a_file_that_is_not_utf8_is_named(data_set: tuple[VQADataModule, Path, dict[str, Any], str]) -> None:
    data, file, row, _ = data_set
    text = json.dumps([{**row, "question": "na?ve", "answer": "left"}])
    file.write_bytes(text.encode().replace(b"na?ve", b"na\xefve"))
    with pytest.raises(ValueError, match=f"{file.name} is not a JSON file: .*utf-8"):
        data.records("train")


def test_what_people_write_becomes_batches(data_set: tuple[VQADataModule, Path, dict[str, Any], str]) -> None:
    data, file, row, _ = data_set
    questions = [
        "where \U0001f600\U0001f3fd?",
        " ".join(["word"] * 10_000),
        "w" * 100_000,
        "\u5de6 side?",
        "[MASK] [SEP]?",
    ]
    answers: list[object] = [2, "\U0001f600", "left " * 10_000, 1.5, "2"]
    rows = [{**row, "question": text, "answer": answer} for text, answer in zip(questions, answers, strict=True)]
    file.write_text(json.dumps([entry | {"qid": 3} for entry in rows]))
    if not isinstance(data, VQARAD):  # VQA-RAD's rows are numbered in their order
        with pytest.warns(UserWarning, match="4 x question id that occurs again, renamed: 3 to 3#2"):
            data.setup("fit")
    data.images.random_resized_crop = False
    (batch,) = list(data.train_dataloader())
    assert len(set(batch.sample_ids)) == 5 and batch.input_ids.shape == (5, data.text_length)
    assert set(batch.texts) == set(questions)
    assert sorted(data.answers)[:2] == ["1.5", "2"] and len(data.answers) == 4


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[{"qid": 1}\n{"qid": 2}]', "is not a JSON file: Expecting ',' delimiter: line 2 column 1"),
        (b"[" * 100_000, "is not a JSON file: it nests too deeply"),
        (b'[{"a":' * 100_000, "is not a JSON file: it nests too deeply"),
        (b"[" + b"1" * 5000 + b"]", "is not a JSON file: .*digits"),
        ('[{"qid": 1}]'.encode("utf-16"), "is not a JSON file: .*utf-8"),
        (b"\0" * 1000, "is not a JSON file: Expecting value: line 1 column 1"),
        (b"", "is not a JSON file: Expecting value"),
        (b"[]", "holds a list without rows"),
        (b'{"rows": []}', "should hold a list of rows, it holds a dict"),
        (b"7", "should hold a list of rows, it holds a int"),
    ],
)
def test_what_is_no_list_of_rows_is_told(
    data_set: tuple[VQADataModule, Path, dict[str, Any], str], content: bytes, told: str
) -> None:
    data, file, _, _ = data_set
    file.write_bytes(content)
    with pytest.raises(ValueError, match=told) as caught:
        data.records("train")
    assert str(file) in str(caught.value)


def junk(root: Path, kind: str) -> tuple[ImageTextDataModule[Any], Path]:
    """A data module whose first file is still to be written."""
    made: dict[str, tuple[ImageTextDataModule[Any], str]] = {
        "vqa_rad": (VQARAD(str(root)), SINGLE_FILE),
        "vqa_rad_split": (VQARAD(str(root), annotations="split"), TRAIN_FILE),
        "slake": (SLAKE(str(root)), "train.json"),
        "vqa_med_2019": (
            VQAMed2019(str(root), categories=["modality"]),
            "train/QAPairsByCategory/C1_Modality_train.txt",
        ),
        "roco": (RadiologyCaptions(roco_root=str(root)), "train/radiology/captions.txt"),
        "medicat": (RadiologyCaptions(medicat_root=str(root)), "figures.jsonl"),
        "melinda": (MELINDA(str(root)), "train.csv"),
    }
    data, name = made[kind]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    if kind == "vqa_rad_split":
        (root / TEST_FILE).write_text("[]")
    return data, root / name


@pytest.mark.parametrize("kind", ["vqa_rad", "vqa_rad_split", "slake", "vqa_med_2019", "roco", "medicat", "melinda"])
def test_a_gigabyte_of_junk_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    data, file = junk(tmp_path, kind)
    with file.open("wb") as handle:
        os.truncate(handle.fileno(), 2**30)
    start = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"1,073,741,824 bytes|line 1: longer than 16,777,216 bytes") as caught:
            data.setup("fit")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.name in str(caught.value)
    assert time.monotonic() - start < 5 and peak < 100 * 2**20


def test_useless_lines_are_counted_not_kept(tmp_path: Path) -> None:
    data, file = junk(tmp_path, "roco")
    file.write_bytes(b"no tab\n" * 50_000)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="ROCO"):
            data.read(problems := Problems("ROCO"))
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert problems.counts == {"line without a tab, left out": 50_000}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("figure_file,caption,p_meth_label\na.png,caf\xe9,x\n".encode("latin-1"), "line 2: not UTF-8"),
        ("figure_file,caption,p_meth_label\na.png,cap,x\n".encode("utf-16"), "line 1: not UTF-8"),
        (b'figure_file,caption,p_meth_label\na.png,"never closed,x\n', "is not a CSV file with a header: .*string"),
        (b'figure_file,caption,p_meth_label\na.png,"a",b"c",x\n', "is not a CSV file with a header: .*line 2"),
        (b"figure_file,caption,p_meth_label\na.png,one,x,too many\n", "is not a CSV file with a header: .*line 2"),
        (b"figure_file,caption,p_meth_label\na.png,a\0b,x\n", "line 2: a NUL byte"),
        (b"\n\n", "is not a CSV file with a header"),
    ],
)
def test_a_broken_table_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    data, file = junk(tmp_path, "melinda")
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}.*{told}"):
        data.setup("fit")


def test_lines_in_another_encoding_are_told(tmp_path: Path) -> None:
    data, file = junk(tmp_path, "roco")
    file.write_bytes("ROCO_1\tA caption.\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"captions\.txt is UTF-16; save the file as UTF-8"):
        data.setup("fit")
    file.write_bytes(b"\xef\xbb\xbfROCO_1\tA caption.\nROCO_2\tA\0B\nROCO_3\tcaf\xe9\r\n")
    records = data.read(problems := Problems("ROCO"))["train"]
    assert [record.sample_id for record in records] == ["roco/ROCO_1"]
    assert problems.counts == {"line with NUL bytes, left out": 1, "line that is not UTF-8, left out": 1}


def test_question_ids_written_as_text_hide_no_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"1": "which organ?", "2": "which side?", "3": "the left side?"}
    rows = [{**VQA_RAD_ROW, "qid": qid, "question": question, "answer": "left"} for qid, question in asked.items()]
    listed: dict[str, Any] = {
        part: {"rows": {row["qid"]: question_digest(row) for row in chosen}, "twins": twins}
        for part, chosen, twins in (("train", rows[:2], [2]), ("test", rows[2:], [3]))
    }
    listed["pairs"], listed["train"]["linked"] = [[2, 3]], [[1, 2]]
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "vqa_rad_splits.json").write_text(json.dumps(listed))
    monkeypatch.setattr("datamodules.vqa_rad_twins.resources.files", lambda package: tmp_path / "list")
    (tmp_path / TRAIN_FILE).write_text(json.dumps(rows[:2]))
    (tmp_path / TEST_FILE).write_text(json.dumps(rows[2:]))
    splits = VQARAD(str(tmp_path), protocol="clean", validation_fraction=0).read(Problems("VQA-RAD"))
    assert [record.sample_id for record in splits["train"]] == ["1"] and splits["test"][0].has_twin
    assert [twin.sample_id for twin in splits["test"][0].twins] == ["2"]
