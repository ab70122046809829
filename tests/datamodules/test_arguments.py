"""The loader's arguments stand once, and every data module takes them: in Python, and on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest
from jsonargparse import ArgumentParser, Namespace
from lightning import LightningDataModule

import datamodules
from datamodules import VQARAD, CaptionDataModule, ImageTextDataModule, PhantomRetrieval, VQADataModule
from datamodules.arguments import LoaderArguments
from datamodules.captions import CaptionArguments
from datamodules.vqa import VQAArguments

LOADER = {
    "tokenizer": "embedded",
    "image_size": 64,
    "batch_size": 32,
    "num_workers": 0,
    "random_resized_crop": True,
    "augmented_views": 0,
    "cache": None,
    "jpeg_draft": False,
    "seed": 0,
}
LONGER_TEXTS = {
    "MELINDA": 128,
    **dict.fromkeys(("MedPixRetrieval", "OwnRetrieval", "ROCORetrieval", "ROCOv2Retrieval"), 64),
}
NEEDED = {"MixedCaptions": ('--data.sources=[{"data": "MedPixCaptions", "root": "medpix"}]',)}
# Each is imported, so that the parser knows its short name.
DATA_SETS = [name for name in datamodules.__all__ if hasattr(datamodules, name) and not name.endswith("DataModule")]


@pytest.mark.parametrize(
    ("declared", "init"),
    [
        (LoaderArguments, ImageTextDataModule.__init__),
        (VQAArguments, VQADataModule.__init__),
        (CaptionArguments, CaptionDataModule.__init__),
    ],
)
def test_declared_types_are_those_of_the_class_that_spells_them_out(declared: type, init: Callable[..., None]) -> None:
    spelled = {**get_type_hints(ImageTextDataModule.__init__), **get_type_hints(init)}
    for name in ("root", "loader", "return", *(("text_length",) if init is ImageTextDataModule.__init__ else ())):
        spelled.pop(name, None)
    assert get_type_hints(declared) == spelled


def parse(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    found: Namespace = parser.parse_args(list(arguments))
    return found


def options(name: str, *arguments: str) -> Namespace:
    needed = NEEDED.get(name, ())
    found: Namespace = parse(f"--data={name}", "--data.root=folder", *needed, *arguments).data.init_args
    return found


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_command_line_knows_each_with_its_default(name: str) -> None:
    found = options(name)
    assert {key: found[key] for key in LOADER} == LOADER
    assert found.text_length == LONGER_TEXTS.get(name, 32)
    assert options(name, "--data.batch_size=4").batch_size == 4


@pytest.mark.parametrize("name", DATA_SETS)
def test_help_explains_each(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(f"--data.help={name}")
    told = capsys.readouterr().out.partition("Help for")[2]
    for argument in (*LOADER, "text_length", "root"):
        words = told.partition(f"--data.{argument} ")[2].partition("type:")[0].split()
        assert len(words) > 3, argument


def test_what_a_class_fixes_is_no_option_of_it() -> None:
    assert {"annotations", "protocol"} <= set(options("VQARAD").keys())
    assert "annotations" not in options("PhantomVQA")
    assert not {"minimum_words", "test_pairs"} & set(options("PhantomRetrieval").keys())


def test_python_takes_them_and_refuses_others(tmp_path: Path) -> None:
    assert VQARAD(str(tmp_path), batch_size=4).batch_size == 4
    assert PhantomRetrieval(seed=3).hparams["seed"] == 3
    with pytest.raises(TypeError, match="bach_size"):
        VQARAD(str(tmp_path), bach_size=4)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        VQARAD(str(tmp_path), batch_size=0)
