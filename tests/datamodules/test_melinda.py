"""MELINDA, on a tiny copy of its layout."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from datamodules import MELINDA
from umd.batch import ClassificationBatch
from umd.files import UserError
from umd.protocols import HasClasses

HEADER = ("figure_file", "caption", "i_meth", "p_meth", "i_meth_label", "p_meth_label")


def line(figure: str, caption: str, label: str) -> tuple[str, ...]:
    return figure, caption, f"fine {label}", f"part {label}", f"coarse {label}", label


def write_table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = HEADER) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "melinda_images").mkdir()
    for number in range(4):
        Image.new("L", (20, 16), 50 * number).save(tmp_path / "melinda_images" / f"{number}.jpg")
    first = line("0.jpg", 'A "gel", lane 1,\nand lane 2.', "western blot")
    write_table(tmp_path / "train.csv", [first, line("1.jpg", "NA", "pull down"), line("2.jpg", "Cells.", "None")])
    write_table(tmp_path / "dev.csv", [line("3.jpg", "More cells.", "pull down")])
    write_table(tmp_path / "test.csv", [line("3.jpg", "Cells.", "never seen"), line("3.jpg", "A gel.", "pull down")])
    return tmp_path


@pytest.mark.filterwarnings("ignore:MELINDA. 1 x test row whose")
def test_captions_and_labels_of_the_published_files(root: Path) -> None:
    data = MELINDA(str(root), image_size=8, batch_size=3)
    assert isinstance(data, HasClasses)
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, ClassificationBatch)
    expected = {
        "melinda_images/0.jpg": ('A "gel", lane 1, and lane 2.', "western blot"),
        "melinda_images/1.jpg": ("NA", "pull down"),  # a text, not a missing value
        "melinda_images/2.jpg": ("Cells.", "None"),
    }
    found = zip(batch.image_names, batch.texts, batch.labels, strict=True)
    assert {name: (text, label) for name, text, label in found} == expected
    for name, brightness in zip(
        batch.image_names, batch.per_pair(batch.image).float().mean((1, 2, 3)).tolist(), strict=True
    ):
        assert abs(brightness - 50 * int(name[-5])) < 3


@pytest.mark.parametrize(
    ("label", "prefix"), [("i_meth", "fine "), ("p_meth", "part "), ("i_meth_label", "coarse "), ("p_meth_label", "")]
)
def test_label_chooses_the_column(root: Path, label: str, prefix: str) -> None:
    data = MELINDA(str(root), label=label)  # type: ignore[arg-type]
    assert data.classes == tuple(sorted(prefix + name for name in ("western blot", "pull down", "None")))


def test_class_that_train_lacks_is_kept_counted_and_said(root: Path) -> None:
    data = MELINDA(str(root), batch_size=9)
    assert "never seen" not in data.classes
    with pytest.warns(UserWarning, match=r"1 x test row whose p_meth_label does not occur in train, kept"):
        data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch.labels == ("never seen", "pull down")
    assert data.description == {
        "data": "MELINDA",
        "label": "p_meth_label",
        "test": "2",
        "test of a class not in train, counted as wrong": "1",
    }


def test_rows_that_cannot_be_used_are_one_warning(root: Path) -> None:
    image = Image.effect_noise((99, 99), 50)
    image.save(root / "melinda_images" / "cut.jpg")
    whole = (root / "melinda_images" / "cut.jpg").read_bytes()
    (root / "melinda_images" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    rows = [
        line("0.jpg", " \n ", "a"),
        line("0.jpg", "No label.", ""),
        line("", "No figure.", "a"),
        line("cut.jpg", "Half an image.", "a"),
        line("../0.jpg", "Outside.", "a"),
        ("0.jpg", "The file breaks off he"),
        line("0.jpg", "Good.", "a"),
    ]
    write_table(root / "train.csv", rows)
    (root / "dev.csv").unlink()
    (root / "test.csv").unlink()
    data = MELINDA(str(root))
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    (message,) = [str(warning.message) for warning in caught]
    for part in (
        "1 x row without caption, left out: train.csv:1",
        "2 x row without p_meth_label, left out: train.csv:2, train.csv:6",
        "1 x row without figure_file, left out: train.csv:3",
        "train.csv:4 (melinda_images/cut.jpg)",
        "image path leads outside the data set: train.csv:5",
    ):
        assert part in message
    assert [record.text for record in data.records("train")] == ["Good."]
    assert data.description["train"] == "1 of 3 (images unusable)"


def test_files_that_are_no_such_table_are_errors(root: Path) -> None:
    path = root / "train.csv"
    write_table(path, [], header=("figure_file", "text", *HEADER[2:]))
    with pytest.raises(ValueError, match=r"train\.csv: no column 'caption' \(there: figure_file, text, i_meth,"):
        MELINDA(str(root)).setup("fit")
    write_table(path, [line("0.jpg", "Good.", "a")] * 2)
    path.write_bytes(path.read_bytes() + b"0.jpg,Na\xefve,a,a,a,a\r\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 4: not UTF-8"):
        MELINDA(str(root)).setup("fit")
    path.write_text("\n".join([",".join(HEADER), "0.jpg,A comma, not quoted,a,a,a,a"]))
    with pytest.raises(ValueError, match=r"train\.csv is not a CSV .* line 2 has 7 cells, the header 6: put a text"):
        MELINDA(str(root)).setup("fit")
    path.write_text("")
    with pytest.raises(ValueError, match=r"train\.csv is not a CSV file with a header"):
        MELINDA(str(root)).setup("fit")


def test_classes_need_the_training_file(root: Path) -> None:
    (root / "train.csv").unlink()
    with pytest.raises(UserError, match=r"those of the train split, which .* lacks"):
        _ = MELINDA(str(root)).classes
    with pytest.raises(UserError, match=r"looked in .* for melinda_images/, train\.csv, .* it holds 0\.jpg"):
        MELINDA(str(root / "melinda_images")).setup("test")
    with pytest.raises(ValueError, match=r"label must be one of i_meth, p_meth, .* not 'method'"):
        MELINDA(str(root), label="method")  # type: ignore[arg-type]
