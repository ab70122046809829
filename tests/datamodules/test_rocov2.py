"""ROCOv2 as Zenodo publishes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules import RadiologyCaptions, ROCOv2Captions, ROCOv2Retrieval
from tests.datamodules.samples import write_rocov2
from umd.files import UserError

CAPTION = 'Chest X-ray, case 0, "showing" opacity'


def test_a_cut_of_the_published_layout(shared_data: Path) -> None:
    root = shared_data.parent / "cases" / "rocov2" / "roco"
    if not root.is_dir():
        pytest.skip(f"no folder {root}")
    for data in (ROCOv2Captions(str(root)), ROCOv2Retrieval(str(root), negatives=2)):
        data.setup()
        assert data.description == {"data": "ROCOv2", "train": "12", "validation": "4", "test": "4"}
        assert {record.text for record in data.records("test")} >= {CAPTION}
        assert data.records("train")[0].sample_id == "ROCOv2_2023_train_000000"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    train = [("ROCOv2_2023_train_1", f"{CAPTION},\nin two lines"), ("ROCOv2_2023_train_2", " "), ("", "No id.")]
    root = write_rocov2(tmp_path / "rocov2", {"train": train[:1], "valid": [("ROCOv2_2023_valid_1", "A cyst.")]})
    table = root / "train_captions.csv"
    table.write_text(table.read_text() + "ROCOv2_2023_train_2, \n,No id.\nROCOv2_2023_train_4,No image.\n")
    (root / "train_concepts.csv").write_text("ID,CUIs\n")
    return root


def test_what_cannot_be_used_is_counted(root: Path) -> None:
    data = ROCOv2Captions(str(root))
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    (message,) = [str(warning.message) for warning in caught]
    assert "2 x row without an id or a caption, left out: train_captions.csv, row 3, train_captions" in message
    assert "1 x train row left out: image: no such file: ROCOv2_2023_train_4" in message
    assert [record.text for record in data.records("train")] == [f"{CAPTION}, in two lines"]
    assert not data.has_test_split


@pytest.mark.filterwarnings("ignore")
def test_beside_other_captions_it_is_named(root: Path) -> None:
    data = RadiologyCaptions(rocov2_root=str(root))
    assert [record.image for record in data.records("validation")] == ["rocov2/valid/ROCOv2_2023_valid_1.jpg"]
    assert data.description == {"data": "ROCOv2", "validation": "1"}
    root.rename(root.with_name("roco"))  # a copy that is called so
    named = RadiologyCaptions(str(root.parent))
    assert [record.image for record in named.records("validation")] == ["rocov2/valid/ROCOv2_2023_valid_1.jpg"]
    assert named.description == {"data": "ROCOv2", "validation": "1"}


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ROCOv2: looked in .*_captions.csv; there are none"):
        ROCOv2Captions(str(tmp_path)).setup("fit")
    (tmp_path / "train_captions.csv").write_text("id,text\n1,A scan.\n")
    with pytest.raises(UserError, match=r"train_captions.csv: no column 'ID' and no 'Caption' \(there: id, text\)"):
        ROCOv2Captions(str(tmp_path)).setup("fit")
