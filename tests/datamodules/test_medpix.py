"""MedPix 2.0: what its files say, on its own and beside others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from datamodules import MedPixCaptions, MedPixRetrieval, RadiologyCaptions
from tests.datamodules.samples import medpix_line, write_medpix
from umd.files import UserError

SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def test_the_published_files(shared_data: Path) -> None:
    root = shared_data / "medpix"
    if not root.is_dir():
        pytest.skip(f"real data not found: no folder {root}")
    expected, placeholders = {}, 0
    for name, split in SPLITS.items():
        lines = (root / "splitted_dataset" / f"descriptions_{name}.jsonl").read_text().splitlines()
        captions = [json.loads(line)["Description"]["Caption"] for line in lines]
        empty = [caption for caption in captions if caption.startswith(("Replace this - ", "IN PROGRESS"))]
        expected[split] = len(captions) - len(empty)
        placeholders += len(empty)
    assert placeholders == 23
    data = MedPixCaptions(str(root))
    with pytest.warns(UserWarning, match="23 x line with a placeholder for a caption, left out"):
        found = {split: data.records(split) for split in SPLITS.values()}  # type: ignore[arg-type]
    assert {split: len(records) for split, records in found.items()} == expected
    assert sum(expected.values()) == 2027
    cases = {split: {record.image.split("_")[0] for record in records} for split, records in found.items()}
    assert not (cases["train"] & cases["test"] or cases["train"] & cases["validation"])
    assert found["train"][0].text == "CT of the chest reveals an obstructing mass and resultant LUL collapse."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    described = {"Caption": "Montage of a mass", "Plane": "NOS - Not specified", "Modality": None}
    odd = [
        medpix_line(5, None),
        medpix_line(6, "  "),
        medpix_line(7, "in progress"),
        medpix_line(8, "Replace this - DESCRIPTION OF THE IMAGE OR FINDINGS."),
        medpix_line(9, 3.5),
        {"Description": {"Caption": "Without an image."}},
        medpix_line(10, "No description.", Description=None),
    ]
    train = [medpix_line(1, "A mass\nin two  lines."), medpix_line(2, "pelvis")]
    train.append(medpix_line(3, "", Description=described))
    lines = {"train": train + odd, "train_1": train[:1], "dev": [medpix_line(4, "A cyst.")]}
    return write_medpix(tmp_path / "medpix", lines)


def test_what_cannot_be_used_is_counted(root: Path) -> None:
    data = MedPixCaptions(str(root))
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    (message,) = [str(warning.message) for warning in caught]
    for part in (
        "4 x line without a caption, left out: descriptions_train.jsonl:4, descriptions_train.jsonl:5",
        "2 x line with a placeholder for a caption, left out: descriptions_train.jsonl:6, descriptions_train.jsonl:7",
        "1 x line without an image, left out: descriptions_train.jsonl:9",
    ):
        assert part in message
    assert [record.text for record in data.records("train")] == ["A mass in two lines.", "pelvis", "Montage of a mass"]
    assert data.records("train")[0].image == "images/MPX1_synpic1.png", "found by its stem"
    assert data.description == {"data": "MedPix", "train": "3", "validation": "1"}


@pytest.mark.filterwarnings("ignore")
def test_details_are_appended_where_they_say_something(root: Path) -> None:
    data = MedPixCaptions(str(root), details=["location", "plane", "modality"])
    assert [record.text for record in data.records("train")] == [
        "A mass in two lines. Plane: Axial. Modality: CT w/contrast (IV). Location: Brain and Neuro.",
        "pelvis. Plane: Axial. Modality: CT w/contrast (IV). Location: Brain and Neuro.",
        "Montage of a mass. Location: Brain and Neuro.",
    ]
    with pytest.raises(UserError, match="details: there is no 'age'; there are plane, modality, location"):
        MedPixCaptions(str(root), details=["age"]).setup("fit")  # type: ignore[list-item]


@pytest.mark.filterwarnings("ignore")
def test_beside_other_captions_it_is_named(root: Path) -> None:
    data = RadiologyCaptions(str(root.parent), medpix_root="medpix")
    data.setup("fit")
    assert data.description["data"] == "MedPix"
    assert [record.sample_id for record in data.records("validation")] == ["medpix/MPX1_synpic4"]
    batch = next(iter(data.train_dataloader()))
    assert set(batch.image_names) == {f"medpix/images/MPX1_synpic{number}.png" for number in (1, 2, 3)}
    with pytest.raises(UserError, match="looked in"):
        RadiologyCaptions(str(root.parent)).setup("fit")  # unless named it is no part of the papers' corpora


def test_a_wrong_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MedPix: looked in .* for images/ and splitted_dataset/.*; there are none"):
        MedPixCaptions(str(tmp_path)).setup("fit")
    write_medpix(tmp_path / "empty", {"train": [medpix_line(1, None)]})
    with pytest.raises(UserError, match=r"no line in them can be used"):
        MedPixCaptions(str(tmp_path / "empty")).setup("fit")


def test_retrieval_of_the_published_files(shared_data: Path) -> None:
    root = shared_data / "medpix"
    if not root.is_dir():
        pytest.skip(f"real data not found: no folder {root}")
    data = MedPixRetrieval(str(root))
    with pytest.warns(UserWarning):
        data.setup("test")
    lines = (root / "splitted_dataset" / "descriptions_test.jsonl").read_text().splitlines()
    captions = [" ".join(json.loads(line)["Description"]["Caption"].split()) for line in lines]
    kept = Counter(caption for caption in captions if len(caption.split()) >= 3)
    assert Counter(record.text for record in data.records("test")) == kept
