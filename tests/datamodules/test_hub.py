"""Copies as the Hugging Face hub has them, written from the published files."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from datamodules import SLAKE, VQARAD, HubVQA, VQADataModule
from datamodules.images import decode
from datamodules.questions import VQARecord
from datamodules.records import Split
from umd.files import UserError


def write_hub(root: Path, split: str, images: Sequence[Path], questions: Sequence[str], answers: Sequence[str]) -> None:
    """One split as `Dataset.push_to_hub` writes it: images in the table, a few rows a group, several parts."""
    features = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    )
    content = [{"bytes": image.read_bytes(), "path": image.name} for image in images]
    columns = {"image": content, "question": list(questions), "answer": list(answers)}
    whole = datasets.Dataset.from_dict(columns, features=features)
    parts = 1 + (len(images) > 500)
    (root / "data").mkdir(parents=True, exist_ok=True)
    for number in range(parts):
        part = whole.shard(parts, number, contiguous=True)
        part.to_parquet(root / "data" / f"{split}-{number:05}-of-{parts:05}.parquet", batch_size=100)


def written(published: VQADataModule, root: Path, splits: Sequence[Split]) -> HubVQA:
    """A copy of these splits, without ids and answer types."""
    for split in splits:
        records = published.records(split)
        files = [published.root / record.image for record in records]
        answers = [record.answer for record in records]
        write_hub(root, split, files, [record.question for record in records], answers)
    return HubVQA(str(root), protocol="paper")


@pytest.mark.parametrize("name", ["vqa_rad", "slake"])
def test_a_copy_holds_what_was_published(name: str, shared_data: Path, tmp_path: Path) -> None:
    splits: tuple[Split, ...] = ("train", "test") if name == "vqa_rad" else ("train", "validation")
    kind = VQARAD if name == "vqa_rad" else SLAKE
    published = kind(str(shared_data / name), protocol="paper")
    copy = written(published, tmp_path, splits)
    assert copy.has_split("test") == (name == "vqa_rad")
    image_of: dict[str, str] = {}
    for split in splits:
        ours, theirs = copy.records(split), published.records(split)
        assert [(row.question, row.answer) for row in ours] == [(row.question, row.answer) for row in theirs]
        assert all(row.closed == (row.answer in ("yes", "no")) for row in ours)
        assert [Path(row.image).name for row in ours] == [Path(row.image).name for row in theirs]
        image_of |= {row.image: other.image for row, other in zip(ours, theirs, strict=True)}
    for ours_, theirs_ in image_of.items():
        assert decode(copy.locate(ours_)).tobytes() == decode(published.root / theirs_).tobytes()
    if name == "vqa_rad":
        asked, trained = _keys(copy.records("test")), _keys(copy.records("train"))
        twins = {key: count for key, count in trained.items() if key in asked}
        assert _keys([row for row in copy.records("train") if row.has_twin]) == twins
        # The framed forms, which the original file tells of, are not to be seen in a copy.
        assert 0 < sum(row.has_twin for row in copy.records("test")) < 286
        assert copy.description["twins"].startswith("found by their text alone; rewordings are not")


def _keys(rows: Sequence[VQARecord]) -> Counter[tuple[str, str]]:
    return Counter((Path(row.image).name, row.question.lower()) for row in rows)


def grey(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)
    return path


def small(root: Path) -> HubVQA:
    images = [grey(root.parent / "made" / f"{level}.png", level) for level in (10, 10, 90, 200)]
    write_hub(root, "train", images, ["a?", "b?", "a?", "a?"], ["yes", "no", "left", "yes"])
    write_hub(root, "validation", images[:1], ["a?"], ["no"])
    return HubVQA(str(root), batch_size=2, num_workers=1, cache=str(root.parent / "cache"), image_size=8)


def test_a_copy_becomes_batches_in_workers_through_the_cache(tmp_path: Path) -> None:
    data = small(tmp_path / "copy")
    data.prepare_data()
    data.setup("fit")
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 3
    for _ in range(2):
        levels = Counter(
            int(image.float().mean()) for batch in data.train_dataloader() for image in batch.per_pair(batch.image)
        )
        assert levels == {10: 2, 90: 1, 200: 1}
        for file in (tmp_path / "cache").rglob("*.npy"):
            file.unlink()  # is made again


def test_images_in_a_copy_that_are_none_are_left_out(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    write_hub(tmp_path / "copy", "train", [grey(tmp_path / "a.png", 1), broken, empty], ["a?"] * 3, ["x"] * 3)
    data = HubVQA(str(tmp_path / "copy"), validation_fraction=0)
    with pytest.warns(UserWarning) as caught:
        assert len(data.records("train")) == 1
    told = " ".join(str(warning.message) for warning in caught)
    assert "train row left out: image: cannot identify image file: train-00000-of-00001.parquet:2" in told
    assert "train row left out: image: no such file: train-00000-of-00001.parquet:3 (empty.png)" in told


def test_memory_does_not_grow_with_a_copy(tmp_path: Path) -> None:
    (tmp_path / "big.bmp").parent.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    files = []
    for number in range(40):
        Image.fromarray(random.integers(0, 256, (600, 600, 3), dtype=np.uint8)).save(tmp_path / f"{number}.bmp")
        files.append(tmp_path / f"{number}.bmp")
    write_hub(tmp_path / "copy", "train", files, ["a?"] * 40, ["x"] * 40)
    size = sum(path.stat().st_size for path in files)
    data = HubVQA(str(tmp_path / "copy"), validation_fraction=0)
    tracemalloc.start()
    try:
        assert len(data.records("train")) == 40
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()


def test_the_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise ConnectionError("Name or service not known\nPlease check your internet connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(
        UserError, match=r"'a/b' cannot be fetched .*not known\); bring its folder: --data\.root"
    ) as told:
        HubVQA(hub="a/b").setup("fit")
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"give its folder \(--data\.root FOLDER\) or its name"):
        HubVQA()


def test_what_is_fetched_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small(tmp_path / "converted").records("train")
    (tmp_path / "original").mkdir()
    asked: list[str | None] = []

    def snapshot_download(hub: str, *, revision: str | None, **_: object) -> str:
        asked.append(revision)
        return str(tmp_path / ("converted" if revision else "original"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    data = HubVQA(hub="owner/questions")
    data.prepare_data()
    assert data.records("train") == made and data.description["data"] == "owner/questions"
    assert asked == [None, "refs/convert/parquet"], "what is no Parquet there has a conversion, and is fetched once"


def test_path_vqas_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "qas" / "train").mkdir(parents=True)
    (tmp_path / "qas" / "train" / "train_qa.pkl").write_bytes(b"\x80\x04.")
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "data" / "path_vqa.yaml").read_text())
    with pytest.raises(
        UserError, match=r"PathVQA: .*train_qa\.pkl is a pickle, and reading one runs .*; bring a copy with"
    ):
        HubVQA(str(tmp_path), **config["data"]["init_args"]).setup("fit")
