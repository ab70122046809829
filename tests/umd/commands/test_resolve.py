"""What follows from all that was given: the data's seed and folders, the precision, where loggers write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.configs.test_configs import CONFIGS
from umd.commands import resolve, train
from umd.commands.train import UMDCLI


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a function from options to settings
    """The settings with which a training would be made; nothing is made."""
    found: list[Any] = []
    monkeypatch.setattr(UMDCLI, "instantiate_classes", lambda self: found.append(self.config["fit"]))
    monkeypatch.setattr(UMDCLI, "_run_subcommand", lambda self, subcommand: None)

    def settings(*options: str, config: str = "vqa.yaml") -> Any:  # noqa: ANN401
        train.run(["fit", f"--config={CONFIGS / config}", *options])
        return found.pop()

    return settings


def test_one_seed_is_the_trainings_and_the_datas(resolved: Any, tmp_path: Path) -> None:  # noqa: ANN401
    own = tmp_path / "own.yaml"
    own.write_text("data: {init_args: {seed: 3}}")
    for options, seed in (
        ([], 0),
        (["--seed_everything=7"], 7),
        (["--seed_everything=7", "--data.seed", "3"], 3),
        (["--data.init_args.seed=3", "--seed_everything=7"], 3),
        (["--seed_everything=7", f"--config={own}"], 3),
        (["--config={data: {init_args: {seed: 3}}}", "--seed_everything=7"], 3),
    ):
        settings = resolved(*options)
        assert settings.data.init_args.seed == seed, options
        assert settings.data.init_args.phantom_seed == 0, "several seeds share one phantom"


def test_folders_of_data_are_found_from_anywhere(
    resolved: Any,  # noqa: ANN401
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = resolved("--data.root=data", "--data.cache=../cache").data.init_args
    assert (data.root, data.cache) == (str(tmp_path / "data"), str(tmp_path / ".." / "cache"))
    captions = resolved("--data=RadiologyCaptions", "--data.roco_root=roco", config="pretrain.yaml").data.init_args
    assert (captions.roco_root, captions.medicat_root) == (str(tmp_path / "roco"), None)
    options = ("--data.root=all", "--data.medpix_root=medpix", "--data.exclude_images_of=[VQARAD=rad]")
    captions = resolved("--data=RadiologyCaptions", *options, config="pretrain.yaml").data.init_args
    assert captions.medpix_root == str(tmp_path / "all" / "medpix"), "below the root"
    assert captions.exclude_images_of == [f"VQARAD={tmp_path / 'rad'}"]
    assert resolved().data.init_args.root is None


# Processors


@pytest.mark.parametrize(
    ("machine", "avx512_bf16", "amx", "arm_bf16", "precision"),
    [
        ("x86_64", False, False, True, "32-true"),  # AVX512 without the units imitates them
        ("x86_64", True, False, True, "bf16-mixed"),
        ("x86_64", False, True, True, "bf16-mixed"),
        ("aarch64", False, False, False, "32-true"),
        ("arm64", False, False, True, "bf16-mixed"),
    ],
)
def test_precision_follows_the_processor(
    machine: str,
    avx512_bf16: bool,
    amx: bool,
    arm_bf16: bool,
    precision: str,
    resolved: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(resolve.platform, "machine", lambda: machine)  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: arm_bf16, raising=False)
    small = [f"--config={CONFIGS / 'small' / 'encoders.yaml'}", "--trainer.accelerator=cpu"]
    with caplog.at_level("INFO"):
        assert resolved(*small).trainer.precision == precision
    said = [line for line in caplog.messages if line.startswith("precision")]
    assert bool(said) == (precision == "32-true") and all("has no bfloat16 units" in line for line in said)
    assert resolved(*small, "--trainer.precision=bf16-mixed").trainer.precision == "bf16-mixed", "what is typed wins"
    assert resolved("--trainer.precision=16-mixed").trainer.precision == "16-mixed"


def test_a_gpu_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert resolve._no_bfloat16("auto") == "Tesla T4 has no bfloat16 units"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolve._no_bfloat16("gpu") is None


# Loggers


def test_a_logger_that_was_not_told_where_writes_into_the_run_folder(resolved: Any, tmp_path: Path) -> None:  # noqa: ANN401
    diary = "tests.umd.commands.loggers.Diary"
    settings = resolved(f"--trainer.logger={diary}", f"--runs={tmp_path}")
    assert settings.trainer.logger.init_args.save_dir == str(tmp_path / "vqa" / "default")
    told = resolved(f"--trainer.logger={diary}", "--trainer.logger.save_dir=here", f"--runs={tmp_path}")
    assert told.trainer.logger.init_args.save_dir == "here"
