"""The names of splits."""

import pytest

from datamodules.split_names import split_of


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
