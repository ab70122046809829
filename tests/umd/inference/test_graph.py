"""Every encoder of the registry as a program: the scores of the stage, for any number of pairs and any length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.synthetic import ENCODER, OPTIMIZER
from umd.encoders import EncoderConfig
from umd.encoders.registry import TEXT, VISION
from umd.files import UserError
from umd.inference import Inputs
from umd.inference.graph import trace, write_onnx, write_program
from umd.inference.program import OnnxProgram
from umd.inference.stage_network import StageNetwork
from umd.inference.torch_program import TorchProgram
from umd.modules import VQAClassifier

TEXT_LENGTH = 16
FAMILY = ("timm/convnext_atto", "timm/vit_tiny_patch16_224", "timm/swin_s3_tiny_224")
SHORT: dict[str, dict[str, Any]] = {
    "clip_vit_b16": {"blocks": 1},
    "clip_vit_b32": {"blocks": 1},
    "clip_vit_l14": {"blocks": 1},
    "resnet50": {"blocks": 1},
    "resnet101": {"blocks": 1},
    "swin_b": {"blocks": 1},
    "vit_b16_in21k": {"blocks": 1},
    "bert_base": {"layers": 1},
    "minilm_l6": {"layers": 1},
    "pubmedbert": {"layers": 1},
    "roberta_base": {"layers": 1},
    "scibert": {"layers": 1},
    "tiny_roberta": {"vocab_size": 200},
}
"""Real widths and shapes, few layers: one is traced like the others."""


def network(config: EncoderConfig) -> StageNetwork:
    torch.manual_seed(0)
    return StageNetwork(VQAClassifier(config, OPTIMIZER, answers=["yes", "no", "left"]), torch.device("cpu"))


def pairs(number: int, length: int, image_size: int) -> Inputs:
    random = np.random.default_rng(number)
    return Inputs(
        image=random.integers(0, 256, (number, 3, image_size, image_size), dtype=np.uint8),
        input_ids=random.integers(4, 40, (number, length)),
        attention_mask=np.arange(length) < np.arange(length, length - number, -1)[:, None],
        word_ids=np.zeros((number, length), dtype=np.int64),
    )


def check(config: EncoderConfig, folder: Path) -> None:
    stage, size = network(config), config.image_size
    program = trace(stage, pairs(2, TEXT_LENGTH, size), TEXT_LENGTH)
    write_program(program, folder / "model.pt2")
    write_onnx(program, folder / "model.onnx")
    programs = [
        TorchProgram(folder / "model.pt2", torch.device("cpu"), None),
        OnnxProgram(folder / "model.onnx", "cpu", None),
    ]
    for number, length in ((1, 8), (3, 11), (2, TEXT_LENGTH)):
        inputs = pairs(number, length, size)
        for written in programs:
            np.testing.assert_allclose(written.scores(inputs), stage.scores(inputs), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        ENCODER,
        replace(ENCODER, freeze_vision=True, pooling="mean"),
        replace(ENCODER, vision=None, vision_options={}),
        replace(ENCODER, text=None, text_options={}, pooling="mean_padded"),
    ],
    ids=["tiny", "frozen", "text alone", "image alone"],
)
def test_tiny_models(config: EncoderConfig, tmp_path: Path) -> None:
    check(config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VISION.names, *FAMILY])
def test_every_vision_encoder(name: str, tmp_path: Path) -> None:
    check(replace(ENCODER, image_size=64, vision=name, vision_options=SHORT.get(name, {})), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TEXT.names) - {"lstm"}))
def test_every_text_encoder_but_one(name: str, tmp_path: Path) -> None:
    check(replace(ENCODER, text=name, text_options=SHORT.get(name, {})), tmp_path)


def test_an_encoder_that_cannot_be_traced_is_named() -> None:
    stage = network(replace(ENCODER, text="lstm", text_options={"width": 16, "vocab_size": 40}))
    with pytest.raises(UserError, match=r"text encoder 'lstm'.*--format safetensors writes any model"):
        trace(stage, pairs(2, TEXT_LENGTH, ENCODER.image_size), TEXT_LENGTH)
