"""Reading checkpoints as data, and putting one network's weights into another."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.synthetic import ENCODER, M3AE, OPTIMIZER, RECONSTRUCTION
from umd.checkpoints import arguments_of, hand_over, public_name, read_checkpoint, to_plain
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.modules import MRPretrain, TDCalib
from umd.modules.objectives import ReconstructionConfig


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# What can be written


@dataclass
class Settings:
    size: int
    where: Path
    betas: tuple[float, float]
    inner: dict[int, object]


def test_settings_become_plain() -> None:
    settings = Settings(3, Path("a") / "b", (0.9, 0.98), {1: None, 2: [Path("c"), True]})
    assert to_plain(settings) == {
        "size": 3,
        "where": os.path.join("a", "b"),
        "betas": [0.9, 0.98],
        "inner": {"1": None, "2": ["c", True]},
    }
    with pytest.raises(TypeError, match="a Tensor cannot go into a checkpoint"):
        to_plain({"deep": [torch.zeros(1)]})


@pytest.mark.parametrize(
    ("home", "public"),
    [
        ("umd.modules.pretrain.MRPretrain", "umd.MRPretrain"),
        ("umd.encoders.multimodal.Pooled", "umd.encoders.Pooled"),
        ("umd.encoders.fusion.Fusion", "umd.encoders.fusion.Fusion"),
        ("umd.masking.PatchMask", "umd.masking.PatchMask"),
        ("of.nobody.Class", "of.nobody.Class"),
    ],
)
def test_a_class_goes_by_its_shortest_name(home: str, public: str) -> None:
    assert public_name(home) == public


def test_of_two_classes_of_one_name_only_the_exported_one_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umd.masking.MRPretrain", Settings, raising=False)
    assert public_name("umd.masking.MRPretrain") == "umd.masking.MRPretrain"


# What is read


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["UMD_TEST_TRACE"],)


class Wide:
    def __init__(self, root: int, size: int = 1, fixed: int = 2) -> None: ...


class Narrow(Wide):
    def __init__(self, own: float = 0.5, **rest: int) -> None:
        super().__init__(fixed=3, **rest)


def test_a_class_takes_what_it_hands_on_but_not_what_it_fixes() -> None:
    assert arguments_of(Wide) == {"root", "size", "fixed"}
    assert arguments_of(Narrow) == {"own", "root", "size"}


def test_an_unsafe_checkpoint_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, path = tmp_path / "executed", tmp_path / "unsafe.ckpt"
    monkeypatch.setenv("UMD_TEST_TRACE", str(trace))
    torch.save({"state_dict": {}, "hyper_parameters": Malice()}, path)
    with pytest.raises(ValueError, match=r"unsafe\.ckpt.*run code"):
        read_checkpoint(path)
    assert not trace.exists()


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        read_checkpoint(tmp_path / "absent.ckpt")
    with pytest.raises(UserError):
        read_checkpoint(tmp_path)
    path = tmp_path / "file.ckpt"
    path.write_text("some text")
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        read_checkpoint(path)
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut short"):
        read_checkpoint(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="state_dict"):
        read_checkpoint(path)


def test_an_archive_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(ValueError, match=r"images\.zip"):
        read_checkpoint(path)


# From one network to another


def changed(encoder: EncoderConfig = ENCODER, reconstruction: ReconstructionConfig = RECONSTRUCTION) -> MRPretrain:
    """A module with weights that no other module starts from, teacher and student apart."""
    module = MRPretrain(encoder, OPTIMIZER, reconstruction)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def saved(module: nn.Module, path: Path) -> Path:
    torch.save({"state_dict": module.state_dict()}, path)
    return path


def take_over(path: Path, module: TDCalib | MRPretrain) -> Any:  # noqa: ANN401 - a HandOver
    return hand_over(path, module, module.hands_over, module.position_tables())


def test_everything_is_taken_over(tmp_path: Path) -> None:
    source, target = changed(), TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION)
    report = take_over(saved(source, tmp_path / "a.ckpt"), target)
    given = source.state_dict()
    for name, value in target.state_dict().items():
        assert torch.equal(value, given[name]), name
    assert (report.loaded, report.resized, report.missing, report.left_over) == (len(given), (), (), ())


def test_the_report_counts_what_is_missing_and_left_over(tmp_path: Path) -> None:
    source, target = changed(reconstruction=M3AE), TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION)
    with torch.no_grad():
        source.register_buffer("other", torch.zeros(1))
    report = take_over(saved(source, tmp_path / "a.ckpt"), target)
    parts = {name.split(".")[0] for name in report.missing}
    assert parts == {"teacher", "image_feature_projection", "text_feature_projection"}
    assert report.left_over == ("other",)
    text = str(report)
    assert f"teacher ({len(target.teacher.state_dict())} tensors)" in text
    assert "other (1 tensors)" in text


def test_positions_of_student_and_teacher_follow_the_image_size(tmp_path: Path) -> None:
    source = changed()
    target = TDCalib(replace(ENCODER, image_size=48), OPTIMIZER, RECONSTRUCTION)
    report = take_over(saved(source, tmp_path / "a.ckpt"), target)
    assert len(report.resized) == 2
    given: dict[str, Tensor] = source.state_dict()
    for name, value in target.state_dict().items():
        if name not in report.resized:
            assert torch.equal(value, given[name]), name
            continue
        square = given[name][1:].T.reshape(1, -1, 4, 4)
        wanted = functional.interpolate(square, size=(6, 6), mode="bicubic", align_corners=False)
        assert torch.equal(value[0], given[name][0])
        torch.testing.assert_close(value[1:], wanted[0].flatten(1).T)


@pytest.mark.parametrize(
    "encoder",
    [
        replace(ENCODER, fusion_width=16),
        replace(ENCODER, vision_options={**ENCODER.vision_options, "patch_size": 16}),
        replace(ENCODER, text_options={**ENCODER.text_options, "vocab_size": 41}),
        replace(ENCODER, fusion_layers=2),
        replace(ENCODER, vision_options={**ENCODER.vision_options, "depth": 2}),
    ],
    ids=["width", "patch size", "vocabulary", "fusion layers", "vision depth"],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_another_architecture_is_refused(tmp_path: Path, encoder: EncoderConfig, reverse: bool) -> None:
    """A network that is taken over in part, with fresh layers in between, would train on without a word."""
    there, here = (encoder, ENCODER) if reverse else (ENCODER, encoder)
    path = saved(MRPretrain(there, OPTIMIZER, M3AE), tmp_path / "a.ckpt")
    target = MRPretrain(here, OPTIMIZER, M3AE)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"a\.ckpt.*another architecture"):
        take_over(path, target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": OrderedDict({"backbone.conv.weight": torch.zeros(2), "fc.bias": torch.zeros(1)})}, path)
    with pytest.raises(ValueError, match=r"foreign\.ckpt.*encoder\..*backbone \(1 tensors\), fc \(1 tensors\)"):
        take_over(path, TDCalib(ENCODER, OPTIMIZER, M3AE))
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="no weights"):
        take_over(path, TDCalib(ENCODER, OPTIMIZER, M3AE))
