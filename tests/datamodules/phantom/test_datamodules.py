"""The phantoms as data modules: one for each task."""

from __future__ import annotations

from pathlib import Path

from datamodules import PhantomCaptions, PhantomClassification, PhantomRetrieval, PhantomVQA
from datamodules.phantom.studies import ORGANS, PLANES
from umd.batch import ImageTextBatch, VQABatch


def test_questions(tmp_path: Path) -> None:
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


def test_captions(tmp_path: Path) -> None:
    data = PhantomCaptions(str(tmp_path / "root"), size=20, batch_size=5)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, ImageTextBatch) and len(batch) == 5
    assert not (batch.input_ids == data.tokenizer.unk_token_id).any()
    assert data.description == {"data": "phantom", "train": "20", "validation": "2", "test": "2"}


def test_pairs_for_retrieval(tmp_path: Path) -> None:
    data = PhantomRetrieval(str(tmp_path / "phantom"), size=40, batch_size=8, text_length=24)
    data.prepare_data()
    data.setup()
    assert [len(data.records(split)) for split in ("train", "validation", "test")] == [40, 4, 4]
    assert next(iter(data.train_dataloader())).negative_input_ids.shape == (8, 15, 24)


def test_classification_holds_all_its_classes_and_the_caption_hides_the_technique(tmp_path: Path) -> None:
    data = PhantomClassification(str(tmp_path / "phantom"), size=60)
    data.prepare_data()
    assert len(data.classes) == 8
    sizes = [len(data.records(split)) for split in ("train", "validation", "test")]
    assert sizes == [60, 6, 6]
    for record in data.records("train"):
        plane, technique = record.label.split()
        assert plane in record.text.lower() and technique not in record.text.lower().split()
