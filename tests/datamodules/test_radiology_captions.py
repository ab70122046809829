"""ROCO and MedICaT: each alone, both as one data set."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from datamodules import RadiologyCaptions
from datamodules.captions import CaptionRecord
from datamodules.medicat import find_figures, read_medicat, split_medicat
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.roco import read_roco
from umd.files import UserError


def test_roco_captions(shared_data: Path) -> None:
    problems = Problems("ROCO")
    path = shared_data / "text_only" / "roco" / "test" / "radiology" / "captions.txt"
    captions = read_roco(path, problems)
    assert len(captions) == 8179 and not problems.counts
    assert captions[0] == ("ROCO_00001", "Axial MRI (coronal view).")


def test_medicat_sample(shared_data: Path) -> None:
    problems = Problems("MedICaT")
    path = shared_data / "medicat_sample" / "sample.jsonl"
    records = read_medicat(path, problems)
    assert (len(records), len(read_medicat(path, problems, radiology_only=True))) == (10, 6)
    assert sum(len(record.alternative_texts) for record in records) == 10
    with pytest.warns(UserWarning, match="split smaller than the usual 1000 .* 1 each of 10 figures"):
        data = RadiologyCaptions(medicat_root=str(path.parent), batch_size=8)
        data.setup()
    assert data.description == {
        "data": "ROCO + MedICaT (medicat alone)",
        "train": "8",
        "validation": "1",
        "test": "1",
    }
    texts = {text for epoch in range(4) for text in epoch_texts(data, epoch)}
    captions = {record.text for record in data.records("train")}
    assert texts - captions and texts & captions
    (batch,) = list(data.test_dataloader())
    assert batch.texts == (data.records("test")[0].text,)


def epoch_texts(data: RadiologyCaptions, epoch: int) -> tuple[str, ...]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return tuple(text for batch in loader for text in batch.texts)


def test_medicat_split_sizes() -> None:
    figures = [CaptionRecord(str(number), "", "") for number in range(10_000)]
    splits = split_medicat(figures)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 8000,
        "validation": 1000,
        "test": 1000,
    }
    assert {row for rows in splits.values() for row in rows} == set(figures)


def test_broken_lines_and_missing_images_are_one_warning(tmp_path: Path) -> None:
    roco, medicat = tmp_path / "roco" / "train" / "radiology", tmp_path / "medicat"
    (roco / "images").mkdir(parents=True)
    (medicat / "figures").mkdir(parents=True)
    Image.new("L", (9, 9)).save(roco / "images" / "ROCO_1.png")
    Image.new("L", (9, 9)).save(medicat / "figures" / "hash_1.png")
    (roco / "captions.txt").write_bytes(b"ROCO_1\tA scan.\nno tab\n\nROCO_2\tNo image.\nROCO_3\t\xff\n")
    figure = {"pdf_hash": "hash", "fig_uri": "1.png", "s2_caption": "A figure.", "radiology": True}
    lines = [json.dumps(figure), '{"pdf_hash": ', json.dumps({**figure, "s2_caption": None})]
    (medicat / "all.jsonl").write_text("\n".join(lines))
    data = RadiologyCaptions(str(tmp_path))
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    (message,) = [str(warning.message) for warning in caught]
    for part in (
        "1 x line without a tab, left out: captions.txt:2",
        "1 x line that is not UTF-8, left out: captions.txt:5",
        "1 x line that is no JSON, left out: all.jsonl:2",
        "1 x figure without s2_caption, left out: all.jsonl:3",
        "1 x train row left out: image: no such file: roco/ROCO_2",
    ):
        assert part in message
    assert [record.sample_id for record in data.records("train")] == ["roco/ROCO_1", "medicat/hash_1.png"]
    assert data.description["train"] == "2 of 3 (images unusable)"


def write_roco(radiology: Path, files: dict[str, str], images: tuple[str, ...]) -> None:
    (radiology / "images").mkdir(parents=True)
    for name, text in files.items():
        (radiology / name).write_text(text)
    for name in images:
        Image.new("L", (9, 9)).save(radiology / "images" / name)


def test_roco_as_people_have_it(tmp_path: Path) -> None:
    """A validation folder called valid, images named by the repository's script, and the tables of a re-export."""
    captions = "ROCO_1\tA scan.\nROCO_2\tAnother scan.\n"
    links = (
        "ROCO_1\twget -P dir ftp://host/pub/ab/PMC11.tar.gz -q\tfig-1.jpg\n"
        "ROCO_2\twget -P dir ftp://host/pub/cd/PMC22.tar.gz -q\tpone.01.g002.jpg\n"
    )
    table = 'id,name,caption\nROCO_3,PMC3_g1.jpg,"A scan, with a comma."\nROCO_4,PMC4_g1.jpg,\n'
    radiology = {split: tmp_path / split / "radiology" for split in ("train", "valid", "testing")}
    write_roco(
        radiology["train"],
        {"captions.txt": captions, "dlinks.txt": links, "traindata.csv": table},
        ("PMC11_fig-1.jpg", "PMC22_pone.01.g002.jpg"),
    )
    write_roco(radiology["valid"], {"captions.txt": captions}, ("ROCO_1.png", "ROCO_2.jpg"))
    write_roco(radiology["testing"], {"testdata.csv": table}, ("PMC3_g1.jpeg",))
    (tmp_path / "dev_old").mkdir()
    data = RadiologyCaptions(roco_root=str(tmp_path))
    with pytest.warns(UserWarning) as caught:
        data.setup()
    (message,) = [str(warning.message) for warning in caught]
    assert "1 x not read, though it is named like a split: dev_old" in message
    assert "1 x row without id or caption, left out: testdata.csv:2" in message
    assert {split: [record.text for record in data.records(split)] for split in get_args(Split)} == {
        "train": ["A scan.", "Another scan."],
        "validation": ["A scan.", "Another scan."],
        "test": ["A scan, with a comma."],
    }
    assert [record.image for record in data.records("train")] == [
        f"roco/train/radiology/images/{name}" for name in ("PMC11_fig-1.jpg", "PMC22_pone.01.g002.jpg")
    ]
    (tmp_path / "validation").mkdir()
    with pytest.raises(UserError, match="valid and validation, which both stand for the validation split"):
        RadiologyCaptions(roco_root=str(tmp_path)).setup()


def test_the_figures_are_found_among_several_files_of_medicat(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (shared_data / "medicat_sample" / "sample.jsonl").read_text()
    (tmp_path / "figures.jsonl").write_text(lines)
    subfigures = {"pdf_hash": "hash", "fig_uri": "1.png", "subcaptions": []}
    (tmp_path / "subcaptions_public.jsonl").write_text(json.dumps(subfigures))
    (tmp_path / "broken.jsonl").write_text("{\n")
    with caplog.at_level(logging.INFO, "datamodules"):
        assert find_figures(tmp_path).name == "figures.jsonl"
    assert "figures read from figures.jsonl, not from broken.jsonl, subcaptions_public.jsonl" in caplog.text
    (tmp_path / "more.jsonl").write_text(lines)
    with pytest.raises(UserError, match=r"one \.jsonl file of figures; found broken.* of which 2 begin with a figure"):
        find_figures(tmp_path)
    (tmp_path / "more.jsonl").rename(tmp_path / "s2_full_figures_oa.jsonl")
    assert find_figures(tmp_path).name == "s2_full_figures_oa.jsonl"


def test_captions_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give root, roco_root, medicat_root, rocov2_root or medpix_root"):
        RadiologyCaptions()
    with pytest.raises(UserError, match=r"looked in .* for roco/"):
        RadiologyCaptions(str(tmp_path)).setup("fit")
    with pytest.raises(UserError, match=r"medicat_root: there is no folder .*elsewhere"):
        RadiologyCaptions(str(tmp_path), medicat_root="elsewhere").setup("fit")
