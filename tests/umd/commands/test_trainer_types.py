"""1 batch is one batch, whatever another library has made of the order of int and float."""

from __future__ import annotations

import inspect
from typing import Optional, Union

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from umd.commands.trainer_types import read_whole_numbers_as_such

OTHER_WAY_ROUND = Optional.__getitem__(Union.__getitem__((float, int)))


def limits(*arguments: str) -> list[float]:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Trainer, "trainer")
    trainer = parser.parse_args(list(arguments)).trainer
    return [trainer.limit_train_batches, trainer.val_check_interval]


def test_one_is_a_batch_and_one_point_zero_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = inspect.unwrap(Trainer.__init__).__annotations__
    for name in ("limit_train_batches", "val_check_interval"):
        monkeypatch.setitem(annotations, name, OTHER_WAY_ROUND)
    read_whole_numbers_as_such()
    found = limits("--trainer.limit_train_batches=1", "--trainer.val_check_interval=1.0")
    assert found == [1, 1.0] and [type(value) for value in found] == [int, float]
