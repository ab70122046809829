"""Decoders and the split head, against sums written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from umd.encoders import Pooled
from umd.heads.image_decoder import ImageDecoder, sincos_positions
from umd.heads.split_head import Contribution, SplitHead
from umd.heads.text_decoder import TextDecoder
from umd.masking import PatchMask, mask_patches


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def loud(module: Any) -> Any:  # noqa: ANN401 - any module
    """The same module with weights and biases large enough to matter."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.eval()


# The split head


def probability(logits: Tensor, place: int) -> float:
    values = logits.double().tolist()
    return math.exp(values[place]) / sum(math.exp(value) for value in values)


def test_last_layer_contributions_by_hand() -> None:
    head: SplitHead = loud(SplitHead(3, 4))
    pooled, labels = Pooled(torch.randn(2, 3), torch.randn(2, 3)), torch.tensor([2, 0])
    found = head.contributions(pooled, labels, "last_layer")
    for row, label in enumerate(labels.tolist()):
        text = [
            sum(head.last.weight[answer, place] * pooled.text[row, place] for place in range(3))
            + head.last.bias[answer] / 2
            for answer in range(4)
        ]
        image = [
            sum(head.last.weight[answer, 3 + place] * pooled.image[row, place] for place in range(3))
            + head.last.bias[answer] / 2
            for answer in range(4)
        ]
        assert found["language"][row].item() == pytest.approx(probability(torch.stack(text), label), rel=1e-5)
        assert found["vision"][row].item() == pytest.approx(probability(torch.stack(image), label), rel=1e-5)


def test_masked_head_contributions_by_hand() -> None:
    head: SplitHead = loud(SplitHead(3, 4))
    pooled, labels = Pooled(torch.randn(2, 3), torch.randn(2, 3)), torch.tensor([1, 3])
    found = head.contributions(pooled, labels)
    dense, norm = head.hidden[0], head.hidden[1]
    assert isinstance(dense, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    for row, label in enumerate(labels.tolist()):
        for name, z in (
            ("language", torch.cat([pooled.text[row], torch.zeros(3)])),
            ("vision", torch.cat([torch.zeros(3), pooled.image[row]])),
        ):
            hidden = dense.weight @ z + dense.bias
            hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + norm.eps).sqrt()
            hidden = hidden * norm.weight + norm.bias
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
            logits = head.last.weight @ hidden + head.last.bias
            assert found[name][row].item() == pytest.approx(probability(logits, label), rel=1e-4)


def test_the_halves_of_the_last_layer_sum_to_it() -> None:
    """The bias is shared out: log-ratios of both modalities' softmax values sum to those of the whole layer."""
    head: SplitHead = loud(SplitHead(3, 4))
    pooled = Pooled(torch.randn(5, 3), torch.randn(5, 3))
    whole = head.last(pooled.joint)
    logs = {}
    for answer in range(4):
        labels = torch.full((5,), answer)
        logs[answer] = sum(value.log() for value in head.contributions(pooled, labels, "last_layer").values())
    for answer in range(1, 4):
        torch.testing.assert_close(logs[answer] - logs[0], whole[:, answer] - whole[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["last_layer", "masked_head"])
def test_unknown_answers_contribute_nothing_and_nothing_is_trained(method: Contribution) -> None:
    head: SplitHead = loud(SplitHead(3, 4))
    text = torch.randn(3, 3, requires_grad=True)
    found = head.contributions(Pooled(text, torch.randn(3, 3)), torch.tensor([-1, 2, -1]), method)
    for values in found.values():
        assert (values != 0).tolist() == [False, True, False]
        assert not values.requires_grad


# The text decoder


def test_text_decoder_by_hand() -> None:
    decoder: TextDecoder = loud(TextDecoder(4, 6))
    token = torch.randn(4)
    hidden = decoder.dense.weight @ token + decoder.dense.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    hidden = (hidden - hidden.mean()) / hidden.var(unbiased=False).sqrt() * decoder.norm.weight + decoder.norm.bias
    torch.testing.assert_close(decoder(token), decoder.predict.weight @ hidden + decoder.predict.bias)


# The image decoder


def test_positions_by_hand() -> None:
    table = sincos_positions(8, 3)
    assert not table[0].any()
    for row in range(3):
        for column in range(3):
            wanted = [
                wave(place * 10000 ** -(k / 2))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for k in range(2)
            ]
            torch.testing.assert_close(table[1 + 3 * row + column], torch.tensor(wanted))


def test_every_place_has_its_own_position() -> None:
    table = sincos_positions(64, 24)
    assert len(torch.unique(table, dim=0)) == 1 + 24 * 24
    distances = torch.cdist(table, table) + 10 * torch.eye(len(table))
    assert distances.min() > 0.1
    with pytest.raises(ValueError, match="decoder_width is 6"):
        sincos_positions(6, 3)


def small_decoder() -> ImageDecoder:
    decoder: ImageDecoder = ImageDecoder(input_width=6, width=8, layers=2, heads=2, patch_size=2, grid=3).eval()
    with torch.no_grad():
        decoder.mask_token.normal_()
    return decoder


@torch.no_grad()
def test_mask_tokens_stand_where_patches_were_hidden() -> None:
    decoder = small_decoder()
    mask = mask_patches(2, 9, 0.6, torch.Generator().manual_seed(1))
    image = torch.randn(2, 1 + mask.keep.shape[1], 6)
    places = sincos_positions(8, 3)
    predicted = decoder(image, mask)
    assert predicted.shape == (2, 9, 12)
    for row in range(2):
        embedded = functional.linear(image[row], decoder.embed.weight, decoder.embed.bias)
        visible = iter(embedded[1:])
        tokens = [embedded[0]]
        tokens += [decoder.mask_token[0, 0] if hidden else next(visible) for hidden in mask.masked[row]]
        blocks: Any = decoder.blocks
        hidden = (torch.stack(tokens) + places)[None]
        for block in blocks.layers:
            hidden = block(hidden, None)
        torch.testing.assert_close(predicted[row], decoder.predict(decoder.norm(hidden))[0, 1:])


@torch.no_grad()
def test_the_order_of_kept_patches_does_not_matter() -> None:
    decoder = small_decoder()
    mask = mask_patches(2, 9, 0.5, torch.Generator().manual_seed(1))
    image = torch.randn(2, 5, 6)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = PatchMask(mask.keep[:, order], mask.masked)
    again = decoder(torch.cat([image[:, :1], image[:, 1:][:, order]], dim=1), shuffled)
    torch.testing.assert_close(again, decoder(image, mask))


@torch.no_grad()
def test_features_at_hidden_places_are_not_read() -> None:
    """An encoder that blanks pixels still yields a token at every place."""
    decoder = small_decoder()
    mask = mask_patches(2, 9, 0.5, torch.Generator().manual_seed(1))
    full = torch.randn(2, 10, 6)
    torch.testing.assert_close(decoder(full, mask), decoder(mask.drop(full), mask))
