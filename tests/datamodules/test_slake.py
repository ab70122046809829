"""SLAKE as published, without its test split."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules import SLAKE
from umd.files import UserError


def test_slake_trains_without_its_test_split(shared_data: Path) -> None:
    data = SLAKE(str(shared_data / "slake"), protocol="paper")
    data.setup("fit")
    assert (len(data.records("train")), len(data.records("validation"))) == (4917, 1053)
    assert sum(record.closed for record in data.records("train")) == 1943
    assert {record.answer for record in data.records("validation")} <= set(data.answers)
    clean = SLAKE(str(shared_data / "slake"))
    assert set(clean.answers) == {record.answer for record in clean.records("train")}
    with pytest.raises(UserError, match=r"no test split .* test\.json"):
        data.setup("test")
    assert not data.has_test_split
    with pytest.raises(ValueError, match=r"none of \['zh'\], but \['en'\]"):
        SLAKE(str(shared_data / "slake"), languages=["zh"]).setup("fit")
