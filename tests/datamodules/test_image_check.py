"""The check of images at the start: each file once, in bounded memory, and it shows how far it is."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from datamodules import image_check
from datamodules.base import ImageTextDataModule
from datamodules.captions import CaptionRecord
from datamodules.image_check import ImageCheck
from datamodules.image_store import ImageStore
from datamodules.images import ImageFile
from datamodules.problems import Problems
from datamodules.records import Split

FILES = 50


class Corpus(ImageTextDataModule[CaptionRecord]):
    """Many captions on few files."""

    title, layout, rows = "corpus", "images", 10_000

    def read(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        return {
            "train": [
                CaptionRecord(str(row), f"images/figure_{row}.png", f"Axial slice {row}") for row in range(self.rows)
            ]
        }

    def locate(self, image: str) -> ImageFile:
        return self.root / f"{int(image[14:-4]) % FILES}.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(FILES):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    return tmp_path


def test_a_row_takes_less_than_a_kilobyte_to_start(root: Path) -> None:
    data = Corpus(str(root))
    tracemalloc.start()
    try:
        assert len(data.records("train")) == Corpus.rows
        data.train_dataloader()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1024 * Corpus.rows  # so that 80,000 take 80 MB; texts included


def test_each_file_is_decoded_once_whoever_names_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    monkeypatch.setattr("datamodules.image_store.decode_as_grey_or_rgb", lambda file, side: decoded.append(file))
    check = ImageCheck("corpus", ImageStore(16), lambda name: root / f"{int(name) % FILES}.png")
    check(map(str, range(200)))
    check(map(str, range(300)))
    assert len(decoded) == 2 * FILES and len(check.files) == 300 and not check.reasons


def test_a_log_is_told_now_and_then_how_far_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(image_check, "MANY_IMAGES", FILES)
    monkeypatch.setattr(image_check, "SECONDS", 0.0)
    with caplog.at_level(logging.INFO, logger="datamodules"):
        ImageCheck("corpus", ImageStore(16), lambda name: root / name)(f"{number}.png" for number in range(FILES))
    assert caplog.messages[0] == "corpus: checking images: 1 of 50"
    assert caplog.messages[-1] == "corpus: checking images: 50 of 50"
