"""Several data sets of captions as one: shares, splits, what is left out, and the same rows after an interruption."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from datamodules import MixedCaptions
from datamodules.loading import EpochSampler
from datamodules.mixed_captions import CaptionSource, shares
from tests.datamodules.samples import medpix_line, write_medpix, write_vqa
from umd.commands.resolve import find_data_from_anywhere
from umd.files import UserError
from umd.run.settings import check_classes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve rows and four of MedPix's form, in two folders; of the first a training image is tested on elsewhere."""
    lines = [medpix_line(number, f"Finding number {number}.") for number in range(20)]
    write_medpix(tmp_path / "large", {"train": lines[:12], "dev": lines[12:14]})
    write_medpix(tmp_path / "little", {"train": lines[14:18], "dev": lines[18:19], "test": lines[19:]})
    write_vqa(tmp_path / "vqa")
    shutil.copy(tmp_path / "large" / "images" / "MPX1_synpic5.png", tmp_path / "vqa" / "images" / "0.png")
    return tmp_path


def mix(root: Path, *weights: float | None, **options: object) -> MixedCaptions:
    sources = [
        CaptionSource("MedPixCaptions", name, weight)
        for name, weight in zip(("large", "little"), weights or (None, None), strict=True)
    ]
    return MixedCaptions(str(root), sources=sources, batch_size=4, **options)  # type: ignore[arg-type]


def keys(data: MixedCaptions, epochs: int, replicas: int = 1, rank: int = 0) -> list[list[int]]:
    sampler = data.make_sampler(data._dataset("train", training=True), replicas, rank)
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


def test_without_weights_each_row_is_seen_once_an_epoch(root: Path) -> None:
    data = mix(root)
    assert [record.image.partition("/")[0] for record in data.records("train")] == ["MedPix 1"] * 12 + ["MedPix 2"] * 4
    for epoch, found in enumerate(keys(data, 3)):
        assert sorted(found) == [16 * epoch + row for row in range(16)]


def test_shares_are_kept_and_rows_of_a_source_are_seen_equally_often(root: Path) -> None:
    data = mix(root, 1, 3)
    found = keys(data, 24)
    seen = Counter(key % 16 for epoch in found for key in epoch)
    for epoch in found:
        assert sum(key % 16 < 12 for key in epoch) == 4 and len(epoch) == 16  # a quarter
    assert {seen[row] for row in range(12)} == {24 * 4 // 12} and {seen[row] for row in range(12, 16)} == {24 * 12 // 4}
    every = [key for epoch in found for key in epoch]
    assert len(set(every)) == len(every)  # so no row is augmented twice in the same way
    data.setup("fit")
    assert data.description["pairs of an epoch"] == "MedPix 1 4 from 12 rows, MedPix 2 12 from 4 rows"


def test_processes_share_an_epoch(root: Path) -> None:
    data = mix(root, 1, 3)
    parts = [keys(data, 2, 2, rank) for rank in (0, 1)]
    for epoch, whole in enumerate(keys(data, 2)):
        assert sorted(parts[0][epoch] + parts[1][epoch]) == sorted(whole)


def test_an_interrupted_epoch_goes_on_with_the_rows_that_were_left(root: Path) -> None:
    data = mix(root, 1, 3)
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(3)
    whole = [(batch.sample_ids, batch.texts) for batch in loader]
    again = data.train_dataloader()
    again.load_state_dict({"epoch": 3, "batches": 2})  # type: ignore[attr-defined]
    again.sampler.set_epoch(3)  # type: ignore[attr-defined]
    assert [(batch.sample_ids, batch.texts) for batch in again] == whole[2:]


def test_splits_are_those_of_the_sources(root: Path) -> None:
    data = mix(root, exclude_images_of=[f"VQARAD={root / 'vqa'}"], exclude_near_duplicates=False)
    assert [record.sample_id for record in data.records("validation")] == [
        "MedPix 1/MPX1_synpic12",
        "MedPix 1/MPX1_synpic13",
        "MedPix 2/MPX1_synpic18",
    ]
    assert len(data.records("test")) == 1
    assert "MedPix 1/MPX1_synpic5" not in [record.sample_id for record in data.records("train")]
    assert data.description["left out"].startswith("1 image of VQA-RAD")


def test_a_source_leaves_out_what_it_is_told(root: Path) -> None:
    options = {"exclude_near_duplicates": False, "details": ["plane"]}
    sources = [
        CaptionSource("MedPixCaptions", "large", exclude_images_of=["VQARAD=vqa"], options=options),
        CaptionSource("datamodules.MedPixCaptions", "little"),
    ]
    data = MixedCaptions(str(root), sources=sources)
    assert len(data.records("train")) == 11 + 4
    assert data.records("train")[0].text == "Finding number 0. Plane: Axial."
    assert data.description["left out of MedPix 1"].startswith("1 image of VQA-RAD")


def test_shares_are_whole_and_lose_nothing() -> None:
    assert shares([2, 1], 2030) == [1353, 677]
    assert shares([1, 1, 1], 8) == [3, 3, 2]
    assert shares([0.5, 0.25], 9) == [6, 3]


def test_what_cannot_be_mixed_is_one_line(root: Path) -> None:
    def made(*sources: CaptionSource) -> MixedCaptions:
        return MixedCaptions(str(root), sources=list(sources))

    large, little = CaptionSource("MedPixCaptions", "large"), CaptionSource("MedPixCaptions", "little")
    with pytest.raises(UserError, match="1 given; a mix is of two data sets or more"):
        made(large)
    with pytest.raises(UserError, match="give each a weight, or none of them"):
        made(large, CaptionSource("MedPixCaptions", "little", 2))
    with pytest.raises(UserError, match="a weight must be above 0, not -1"):
        mix(root, 1, -1)
    with pytest.raises(
        UserError, match=r"the share of MedPix 2 \(weight 0\.001 of 1\.001\) of 16 rows is less than one"
    ):
        mix(root, 1, 0.001).train_dataloader()
    with pytest.raises(UserError, match="VQARAD: only data sets of captions are mixed"):
        made(large, CaptionSource("VQARAD", "vqa"))
    with pytest.raises(UserError, match="'MedPixes' is no class of a data set"):
        made(large, CaptionSource("MedPixes", "little"))
    with pytest.raises(UserError, match="batch_size stands once, for all sources"):
        made(large, CaptionSource("MedPixCaptions", "little", options={"batch_size": 3}))
    with pytest.raises(UserError, match=r"MedPixCaptions: .*unexpected keyword argument 'detail'"):
        made(large, CaptionSource("MedPixCaptions", "little", options={"detail": []}))
    with pytest.raises(UserError, match=r"MedPix: looked in .*nowhere"):
        made(little, CaptionSource("MedPixCaptions", "nowhere")).setup("fit")


def test_a_checkpoint_that_names_classes_of_others_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"data": {"class_path": "datamodules.MixedCaptions", "init_args": {"sources": [{"data": "evil.Data"}]}}}
    with pytest.raises(UserError, match=r"asks for the class 'evil\.Data'"):
        check_classes(settings, "x.ckpt", "")
    settings["data"]["init_args"] = {"sources": [{"data": "SLAKECaptions"}]}
    check_classes(settings, "x.ckpt", "")

    monkeypatch.chdir(root)
    given = SimpleNamespace(init_args={"root": ".", "sources": []})
    find_data_from_anywhere(given)
    assert given.init_args["root"] == str(root)
