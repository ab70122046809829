"""A frozen vision encoder: untouched by training, and remembered features are the network's own."""

from __future__ import annotations

import copy

import pytest
import torch

from umd.encoders import EncoderConfig, MultimodalEncoder
from umd.encoders.feature_memory import FeatureMemory


def small(**more: object) -> MultimodalEncoder:
    torch.manual_seed(0)
    settings = {"image_size": 64, "vision": "resnet50", "text": "tiny_bert", "fusion_width": 16, "fusion_layers": 1}
    settings |= {"text_options": {"width": 16, "layers": 1}, "fusion_heads": 2, "fusion_dropout": 0.0, **more}
    return MultimodalEncoder(EncoderConfig(**settings))  # type: ignore[arg-type]


def test_each_image_is_encoded_once_and_the_oldest_goes_first() -> None:
    images, asked = torch.rand(5, 3, 4, 4), []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        asked.append(len(pixels))
        return pixels.flatten(1)[:, None] * 2

    memory = FeatureMemory(images=3)
    for places in ([0, 1, 0], [1, 2], [3]):
        assert torch.equal(memory.encode(images[places], encode), images[places].flatten(1)[:, None] * 2)
    assert sum(asked) == 4
    memory.encode(images[[1, 2, 3]], encode)  # these three are left
    assert sum(asked) == 4
    memory.encode(images[[0]], encode)
    assert sum(asked) == 5


def test_training_leaves_a_frozen_encoder_and_its_statistics_alone() -> None:
    encoder = small(freeze_vision=True).train()
    before = copy.deepcopy(encoder.vision.state_dict())
    ids, mask = torch.randint(5, 20, (2, 4)), torch.ones(2, 4, dtype=torch.bool)
    features = encoder(torch.rand(2, 3, 64, 64), ids, mask)
    (features.image.square().mean() + features.text.square().mean()).backward()
    assert all(torch.equal(value, before[name]) for name, value in encoder.vision.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.vision.parameters())
    assert encoder.fusion.image_projection.weight.grad is not None


def test_other_weights_are_not_answered_from_memory() -> None:
    encoder = small(freeze_vision=True).eval()
    pixels, ids, mask = torch.rand(1, 3, 64, 64), torch.randint(5, 20, (1, 4)), torch.ones(1, 4, dtype=torch.bool)
    torch.manual_seed(1)
    other = small().eval()
    torch.nn.init.normal_(other.vision.get_parameter("model.conv1.weight"))
    with torch.no_grad():
        encoder(pixels, ids, mask)
        encoder.load_state_dict(other.state_dict())
        assert torch.allclose(encoder(pixels, ids, mask).image, other(pixels, ids, mask).image, atol=1e-5)


def test_freezing_an_encoder_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="freeze_vision"):
        EncoderConfig(vision=None, freeze_vision=True)
