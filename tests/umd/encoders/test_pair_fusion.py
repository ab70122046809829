"""The fusion of many pairs against the plain one, pair by pair."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.synthetic import ENCODER
from umd.encoders.multimodal import Features, MultimodalEncoder
from umd.encoders.pair_fusion import PairFusion


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("patches", [4, 60])  # with many, texts are few enough for other ways to be cheaper
@torch.no_grad()
def test_pooled_features_are_those_of_each_pair_by_itself(patches: int, layers: int, pooling: str) -> None:
    torch.manual_seed(0)
    encoder = MultimodalEncoder(replace(ENCODER, fusion_layers=layers, pooling=pooling)).double().eval()  # type: ignore[arg-type]
    for parameter in encoder.parameters():
        parameter.normal_(std=0.3)  # biases too
    lengths = torch.tensor([2, 6, 4, 6])
    mask = torch.arange(6) < lengths[:, None]
    text = torch.randn(4, 6, encoder.text.width).double()
    images = torch.randn(2, 1 + patches, encoder.vision.width).double()
    fusion = PairFusion(encoder)
    texts = fusion.text(text, mask)
    for image in images[:, None]:
        for few in (torch.tensor([1, 2, 0]), torch.tensor([3, 1])):
            found = fusion.pooled(texts.of(few, int(lengths[few].max())), fusion.image(image).expand(len(few)))
            for place, row in enumerate(few.tolist()):
                own, real = text[row, None, : lengths[row]], mask[row, None, : lengths[row]]
                fused_text, fused_image = encoder.fusion(own, real, image)
                expected = encoder.pool(Features(fused_text, fused_image, real))
                torch.testing.assert_close(found.text[place], expected.text[0], rtol=0, atol=1e-9)
                torch.testing.assert_close(found.image[place], expected.image[0], rtol=0, atol=1e-9)
