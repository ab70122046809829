"""Images that two data sets share: found however they were copied, and left out of what is pre-trained on."""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules import VQARAD, MedPixCaptions, leaks
from datamodules.leaks import Shared, find_shared, images_of, other_data, published_id
from tests.datamodules.samples import medpix_line, picture, write_medpix, write_vqa
from umd.files import UserError

needs_hashes = pytest.mark.skipif(not leaks.can_hash(), reason="imagehash is not installed")


def test_only_numbers_of_known_series_are_published_ids() -> None:
    assert published_id("images/MPX1024_synpic40275.jpg") == published_id("synpic40275.png") == "synpic40275"
    assert published_id("train/radiology/images/ROCO_00012.jpg") == "ROCO_00012"
    assert published_id("valid/ROCOv2_2023_valid_000003.jpg") == "ROCOv2_2023_valid_000003"
    assert published_id("imgs/xmlab102/source.jpg") == "xmlab102"
    for name in ("images/0001.png", "mysynpic12.png", "source.jpg", "synpic.png"):
        assert published_id(name) is None


def test_the_same_file_and_the_same_id(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    picture(tmp_path / "synpic7.png", 2)
    picture(tmp_path / "MPX_synpic7.jpg", 3)
    here = {"a": tmp_path / "a.png", "x/synpic7.png": tmp_path / "synpic7.png", "gone": tmp_path / "gone.png"}
    there = {"MPX_synpic7": tmp_path / "MPX_synpic7.jpg", "b": tmp_path / "b.png"}
    assert find_shared(here, [there, {}], near_duplicates=False) == [
        [Shared("a", "b", ("same file",)), Shared("x/synpic7.png", "MPX_synpic7", ("same id",))],
        [],
    ]


@dataclass(frozen=True)
class Stored:
    """An image in a table, as copies from the hub have it."""

    content: bytes
    container: str = "a table"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def read(self) -> bytes:
        return self.content


def test_an_image_in_a_table_is_the_same_file_too(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"{number}.png", number)
    files = {f"{number}": tmp_path / f"{number}.png" for number in range(3)}
    table = {f"row {number}": Stored((tmp_path / f"{number}.png").read_bytes()) for number in (1, 2)}
    expected = [("1", "row 1"), ("2", "row 2")]
    near = leaks.can_hash()
    (found,) = find_shared(files, [table], near_duplicates=near)
    assert [(one.here, one.there) for one in found] == expected
    (found,) = find_shared(table, [files], near_duplicates=near)
    assert [(one.there, one.here) for one in found] == expected
    assert all(one.ways == ("same file", *["near-duplicate"] * near) for one in found)


COPIES: dict[str, Callable[[Image.Image, Path], None]] = {
    "halved": lambda image, path: image.resize((image.width // 2, image.height // 2)).save(path),
    "doubled": lambda image, path: image.resize((2 * image.width, 2 * image.height)).save(path),
    "squared": lambda image, path: image.resize((224, 224)).save(path),
    "quality 50": lambda image, path: image.save(path, quality=50),
}


@needs_hashes
@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_real_images_are_found_and_nothing_else(copy: str, shared_data: Path, tmp_path: Path) -> None:
    originals = {path.name: path for path in sorted((shared_data / "vqa_rad" / "images").iterdir())[::8]}
    copies = {name: tmp_path / f"{number}.jpg" for number, name in enumerate(originals)}
    for name, path in originals.items():
        with Image.open(path) as image:
            COPIES[copy](image, copies[name])
    (found,) = find_shared(originals, [copies], near_duplicates=True)
    assert [(one.here, one.there) for one in found] == [(name, name) for name in originals]
    assert all(one.ways[-1] == "near-duplicate" for one in found)


@needs_hashes
def test_distances_are_those_of_the_library(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import imagehash

    paths = {path.name: path for path in sorted((shared_data / "vqa_rad" / "images").iterdir())[:20]}
    monkeypatch.setattr(leaks, "NEAR", 90)
    monkeypatch.setattr(leaks, "_BLOCK", 7)
    hashes = {name: imagehash.phash(Image.open(path).convert("RGB"), hash_size=16) for name, path in paths.items()}
    near = {(one, other) for one in paths for other in paths if hashes[one] - hashes[other] <= 90}
    (found,) = find_shared(paths, [paths], near_duplicates=True)
    assert {(shared.here, shared.there) for shared in found if "near-duplicate" in shared.ways} == near
    assert len(paths) < len(near) < len(paths) ** 2


@needs_hashes
def test_medpix_holds_nineteen_images_of_vqa_rad_by_their_numbers(shared_data: Path) -> None:
    root = shared_data / "medpix"
    if not root.is_dir():
        pytest.skip(f"real data not found: no folder {root}")
    rad = VQARAD(str(shared_data / "vqa_rad"), validation_fraction=0)
    there, splits = images_of(rad, ("train", "test"))
    here = {path.name: path for path in sorted((root / "images").iterdir())}
    (found,) = find_shared(here, [there], near_duplicates=True)
    by_id = [one for one in found if "same id" in one.ways]
    assert len(by_id) == 19 and sum("test" in splits[one.there] for one in by_id) == 10
    # Two more are the same picture under another number; of the 19 two were cropped, and only the number tells.
    others = {(Path(one.here).stem, Path(one.there).stem) for one in found if "same id" not in one.ways}
    assert {there for _, there in others} == {"synpic24220", "synpic34054"} and len(others) == 2
    assert sum("near-duplicate" not in one.ways for one in by_id) == 2


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """VQA-RAD's layout with images 0 to 5 (0 is tested on), and MedPix's, which holds three of them."""
    rad = write_vqa(tmp_path / "rad")
    for number in range(6):
        picture(rad / "images" / f"{number}.png", number)
    lines = [medpix_line(number, f"Finding {number}.") for number in range(10, 20)]
    medpix = write_medpix(tmp_path / "medpix", {"train": lines[:6], "dev": lines[6:8], "test": lines[8:]})
    images = medpix / "images"
    shutil.copy(rad / "images" / "0.png", images / "MPX1_synpic10.png")  # the same file as the test image
    with Image.open(rad / "images" / "0.png") as image:
        image.resize((200, 200)).save(images / "MPX1_synpic16.png")  # looks like it
    shutil.copy(rad / "images" / "5.png", images / "MPX1_synpic11.png")  # a training image
    return rad, medpix


def texts(data: MedPixCaptions) -> set[str]:
    return {record.text for split in ("train", "validation", "test") for record in data.records(split)}


ALL = {f"Finding {number}." for number in range(10, 20)}


@needs_hashes
def test_images_of_a_test_split_are_left_out_counted_and_named(both: tuple[Path, Path]) -> None:
    rad, medpix = both
    data = MedPixCaptions(str(medpix), exclude_images_of=[f"VQARAD={rad}"], exclude_splits=["test"])
    assert ALL - texts(data) == {"Finding 10.", "Finding 16."}
    assert data.description == {
        "data": "MedPix",
        "train": "5",
        "validation": "1",
        "test": "2",
        "left out": "2 images of VQA-RAD (test)",
    }
    everything = MedPixCaptions(
        str(medpix), exclude_images_of=[f"VQARAD={rad}"], exclude_splits=["train", "validation", "test"]
    )
    assert ALL - texts(everything) == {"Finding 10.", "Finding 11.", "Finding 16."}
    # What validates is not pre-trained on either, whichever image that is.
    validation = VQARAD(str(rad)).image_files("validation")
    default = MedPixCaptions(str(medpix), exclude_images_of=[f"datamodules.VQARAD={rad}"])
    assert ALL - texts(default) == {"Finding 10.", "Finding 16."} | {
        "Finding 11." for name in validation if name == "images/5.png"
    }
    assert "(validation, test)" in default.description["left out"]


def test_what_both_hold_out_as_the_same_split_stays(tmp_path: Path) -> None:
    lines = [medpix_line(number, f"Finding {number}.") for number in range(10, 20)]
    one = write_medpix(tmp_path / "one", {"train": lines[:6], "dev": lines[6:8], "test": lines[8:]})
    # The same images, of which 15 is now validated on and 17 tested on.
    other = write_medpix(tmp_path / "other", {"train": lines[:5], "dev": lines[5:7], "test": lines[7:]})
    given = {"exclude_images_of": [f"MedPixCaptions={other}"], "exclude_near_duplicates": False}
    data = MedPixCaptions(str(one), **given)  # type: ignore[arg-type]
    assert ALL - texts(data) == {"Finding 15.", "Finding 17."}
    assert data.description["left out"].startswith("2 images of MedPix (validation, test)")


def test_images_under_another_ending_are_found(both: tuple[Path, Path]) -> None:
    rad, medpix = both
    for path in (rad / "images").iterdir():
        path.rename(path.with_suffix(".PNG"))
    data = MedPixCaptions(
        str(medpix), exclude_images_of=[f"VQARAD={rad}"], exclude_splits=["test"], exclude_near_duplicates=False
    )
    assert ALL - texts(data) == {"Finding 10."}


def test_without_the_library_one_line_says_what_to_install(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rad, medpix = both
    find, load = importlib.util.find_spec, builtins.__import__

    def lacking(name: str, *given: Any, **more: Any) -> Any:  # noqa: ANN401
        if name == "imagehash":
            raise ImportError(name)
        return load(name, *given, **more)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "imagehash" else find(name))
    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UserError, match=r"exclude_images_of: near-duplicates need the package imagehash .*leaks"):
        MedPixCaptions(str(medpix), exclude_images_of=[f"VQARAD={rad}"])
    data = MedPixCaptions(
        str(medpix), exclude_images_of=[f"VQARAD={rad}"], exclude_splits=["test"], exclude_near_duplicates=False
    )
    assert ALL - texts(data) == {"Finding 10."}
    assert data.description["left out"] == "1 image of VQA-RAD (test); near-duplicates were not looked for"


def test_a_data_set_is_named_by_its_class_and_folder(both: tuple[Path, Path]) -> None:
    rad, medpix = both
    assert isinstance(other_data(f"VQARAD={rad}", "--against"), VQARAD)
    for given, wrong in (
        (str(rad), "is named as CLASS=FOLDER"),
        ("VQARAD=", "is named as CLASS=FOLDER"),
        (f"Path={rad}", "'Path' is no class of a data set"),
        (f"no.such.Module={rad}", "there is no module 'no.such'"),
    ):
        with pytest.raises(UserError, match=wrong):
            other_data(given, "--against")
    with pytest.raises(UserError, match="exclude_splits: there is no 'dev'; there are train, validation, test"):
        MedPixCaptions(str(medpix), exclude_splits=["dev"])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"VQA-RAD: looked in .*nowhere"):
        MedPixCaptions(str(medpix), exclude_images_of=["VQARAD=/nowhere"], exclude_near_duplicates=False).setup("fit")


@needs_hashes
def test_what_is_no_image_is_no_duplicate(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(50) + name.encode())
    (found,) = find_shared({"a": tmp_path / "a.png"}, [{"b": tmp_path / "b.png"}], near_duplicates=True)
    assert found == []
