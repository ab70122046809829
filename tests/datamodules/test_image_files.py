"""Image names with another ending than their files, or with none."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules import VQARAD
from datamodules.image_files import ImageFinder, image_folder
from datamodules.images import ImageError
from tests.datamodules.samples import row, write_vqa


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("b.jpg", "b.png"),
        ("b", "b.png"),
        ("c.png", "c.JPG"),
        ("pone.01.g004", "pone.01.g004.jpg"),
        ("IM1.dcm", "IM1"),
        ("absent.jpg", "absent.jpg"),
        ("notes.jpg", "notes.jpg"),
        ("folder.jpg", "folder.jpg"),
    ],
)
def test_a_file_is_found_by_its_name_but_for_the_ending(tmp_path: Path, asked: str, found: str) -> None:
    for name in ("a.jpg", "a.png", "b.png", "c.JPG", "pone.01.g004.jpg", "pone.01.g005.jpg", "IM1", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert ImageFinder().find(tmp_path / asked) == tmp_path / found


def test_what_several_files_may_be_is_told(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(ImageError, match=r"no such file, but a\.jpg and a\.png"):
        ImageFinder().find(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="too long"):
        ImageFinder().find(tmp_path / ("a" * 300))


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"{number}.png").touch()
    listed: list[Any] = []
    scandir = os.scandir

    def counted(folder: Path) -> Any:  # noqa: ANN401
        listed.append(folder)
        return scandir(folder)

    monkeypatch.setattr("os.scandir", counted)
    files = ImageFinder()
    assert [files.find(tmp_path / f"{number}.jpg").name for number in range(60)][-11:] == [
        "49.png",
        *(f"{number}.jpg" for number in range(50, 60)),
    ]
    assert listed == [tmp_path]


def test_rows_use_such_files_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = [row(50, "3.jpg", "one?", "yes"), row(51, "two", "two?", "yes"), row(52, "5.tif", "three?", "yes")]
    root = write_vqa(tmp_path / "data", rows=more)
    for name in ("two.bmp", "two.png"):
        Image.new("L", (9, 9)).save(root / "images" / name)
    data = VQARAD(str(root), validation_fraction=0)
    with (
        caplog.at_level(logging.INFO, "datamodules"),
        pytest.warns(UserWarning, match=r"no such file, but two\.bmp and two\.png: .* \(images/two\)"),
    ):
        assert len(data.records("train")) == 14
    assert "2 image names have another ending than their files (3.jpg is 3.png)" in caplog.text
    assert {record.image for record in data.records("train")} >= {"images/3.jpg", "images/5.tif"}


def test_the_image_folder_may_have_another_name(tmp_path: Path) -> None:
    assert image_folder(tmp_path, "images", "Other Folder") == "images"
    (tmp_path / "other folder").mkdir()
    assert image_folder(tmp_path, "images", "Other Folder") == "other folder"
    (tmp_path / "Images").mkdir()
    assert image_folder(tmp_path, "images", "Other Folder") == "Images"
