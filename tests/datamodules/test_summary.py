"""A data set of one's own says as much of itself as the shipped ones: what it says is its task's."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from datamodules import ClassificationDataModule
from datamodules.classification import ClassificationRecord
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.summary import as_csv, shown


class Colours(ClassificationDataModule):
    """Images of one colour; the label is the folder."""

    title = "colours"
    layout = "{train,test}/COLOUR/*.png"
    label = "colour"

    def read_published(self, problems: Problems) -> dict[Split, list[ClassificationRecord]]:
        splits: dict[Split, list[ClassificationRecord]] = {"train": [], "test": []}
        for split, records in splits.items():
            for path in sorted((self.root / split).glob("*/*.png")):
                name = str(path.relative_to(self.root))
                records.append(ClassificationRecord(name, name, "An image.", path.parent.name))
        return splits


@pytest.fixture
def data(tmp_path: Path) -> Colours:
    numbers = {"train": {"blue": 1, "red": 2}, "test": {"green": 1, "red": 3}}
    for split, counts in numbers.items():
        for colour, count in counts.items():
            (tmp_path / split / colour).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), colour).save(tmp_path / split / colour / f"{number}.png")
    return Colours(str(tmp_path))


def test_a_users_classification_has_classes_majority_and_ceiling(data: Colours) -> None:
    with pytest.warns(UserWarning, match="1 x test row whose colour does not occur in train"):
        summary = data.summary()
    assert summary.splits["train"] == {"rows": 3, "image_unusable": 0, "images": 3, "classes": {"blue": 1, "red": 2}}
    assert {split: found["of"] for split, found in summary.facts.pop("text_lengths").items()} == {"train": 3, "test": 4}
    assert summary.facts == {
        "label": "colour",
        "test": {"most_frequent_label": "red", "most_frequent_label_accuracy": 75.0, "ceiling": 75.0},
    }
    assert json.loads(json.dumps(summary.facts)) == summary.facts
    assert summary.test_file == "test_rows.csv"
    assert as_csv(summary.test_rows).splitlines()[1:3] == ["0,test/green/0.png,green,red", "1,test/red/0.png,red,red"]


def test_the_terminal_shows_the_same(data: Colours) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = data.summary()
    console = Console(file=io.StringIO(), width=100)
    for table in shown(summary, data.description):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    told = [" ".join(word for word in line if word not in "│┃") for line in lines]
    assert told[0].startswith("colours, label: colour")
    for line in ("train 3 0 3", "test 4 0 4", "green 0 1", "red 2 3", "there is no validation split"):
        assert line in told
    assert "most frequent label of train: red, right on 75.0 % of the test rows (ceiling 75.0 %)" in told
