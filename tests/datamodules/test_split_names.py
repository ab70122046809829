"""The names of splits."""

from pathlib import Path

import pytest

from datamodules.problems import Problems
from datamodules.split_names import find_splits, split_of
from umd.files import UserError


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train training Train TRAIN", "train"),
        ("validate validation val valid dev Valid DEV", "validation"),
        ("test testing Test", "test"),
        ("trainset test_old validated development tests all eval", None),
    ],
)
def test_a_name_stands_for_one_split_or_none(names: str, split: str | None) -> None:
    """Upper and lower case and outer blanks aside; a name that only begins like a split's is none."""
    assert {split_of(form) for name in names.split() for form in (name, f" {name}\t")} == {split}


def test_files_are_found_by_their_splits(tmp_path: Path) -> None:
    """In the order of the splits; what only looks like one of them is told, other files and hidden ones are not."""
    for name in ("test.json", "Train.JSON", "val.json", "test_old.json", "trainset.csv", "contest.json", "._dev.json"):
        (tmp_path / name).touch()
    for name in ("dev", "test2", "images"):
        (tmp_path / name).mkdir()
    problems = Problems("a data set")
    found = find_splits(tmp_path, problems, ending=".json")
    assert {split: path.name for split, path in found.items()} == {
        "train": "Train.JSON",
        "validation": "val.json",
        "test": "test.json",
    }
    assert list(found) == ["train", "validation", "test"]
    assert str(problems) == (
        "a data set: 4 x not read, though it is named like a split: dev, test2, test_old.json and 1 more"
    )
    assert find_splits(tmp_path, None, ending="") == {"validation": tmp_path / "dev"}


def test_two_files_of_one_split_are_told_not_picked_from(tmp_path: Path) -> None:
    """The message names both."""
    for name in ("validate.json", "validation.json"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"holds validate\.json and validation\.json, which both stand for the val"):
        find_splits(tmp_path, None, ending=".json")
