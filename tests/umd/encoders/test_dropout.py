"""Dropout of our own, and attention with it, against torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from umd.encoders.attention import Attention
from umd.encoders.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999999])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_the_share_is_dropped_and_the_rest_scaled_up(share: float, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    tokens = torch.ones(201, 5003, dtype=kind, requires_grad=True)
    found = Dropout(share)(tokens)
    kept, many = found != 0, tokens.numel()
    spread = (share * (1 - share) / many) ** 0.5
    assert abs(float((~kept).double().mean()) - share) < 5 * spread + 1 / 65536
    assert found.shape == tokens.shape
    assert found.dtype == kind
    assert len(found[kept].unique()) == 1
    if share < 0.9:
        assert float(found.detach().double().mean()) == pytest.approx(1, abs=0.01)
        # Neighbours, which share a drawn number, are dropped independently of each other.
        for step in (1, 2, 3):
            both = float((~kept[:, :-step] & ~kept[:, step:]).double().mean())
            assert both == pytest.approx(share**2, abs=8 * spread)
    (gradient,) = torch.autograd.grad(found.sum(), tokens)
    assert torch.equal(gradient, found.detach())


def test_it_is_that_of_its_seed_and_absent_in_evaluation() -> None:
    dropout, tokens, drawn = Dropout(0.5), torch.randn(7, 3), []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append(dropout(tokens))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], dropout(tokens))
    assert dropout.eval()(tokens) is tokens
    assert torch.equal(Dropout(0.0)(tokens), tokens)


class Kept(Dropout):
    """It says that it drops, and keeps all."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


@pytest.mark.parametrize(("tokens", "seen"), [(1, 6), (5, 6), (3, 40), (40, 3)])
@pytest.mark.parametrize("reads", ["all", "masked", "causal"])
def test_attention_with_dropout_is_torchs_but_for_the_mask(tokens: int, seen: int, reads: str) -> None:
    """Values, and gradients of every weight, also where few tokens make another way the cheapest one."""
    torch.manual_seed(0)
    plain = Attention(width=16, heads=4, dropout=0.0, layer_norm_eps=1e-12)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    dropping = copy.deepcopy(plain).train()
    dropping.dropout = Kept(0.3)
    own, context = torch.randn(3, tokens, 16), torch.randn(3, seen, 16)
    mask = torch.arange(seen) < torch.tensor([2, seen, 3])[:, None] if reads == "masked" else None
    results = []
    for attention in (plain.eval(), dropping):
        given = [part.clone().requires_grad_() for part in (own, context)]
        found = attention(*given, mask, reads == "causal")
        loss = (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum()
        results.append((found, *torch.autograd.grad(loss, [*given, *attention.parameters()])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tokens", "seen"), [(1, 3), (2, 40), (40, 2)])
def test_each_way_drops_of_each_head_what_it_reads(tokens: int, seen: int) -> None:
    """Of many draws the mean is what is read without dropout, before the LayerNorm."""
    torch.manual_seed(0)
    attention = Attention(width=8, heads=2, dropout=0.4, layer_norm_eps=1e-12).train()
    attention.norm = torch.nn.Identity()  # type: ignore[assignment]
    own, context = torch.randn(1, tokens, 8), torch.randn(1, seen, 8)
    with torch.no_grad():
        many = attention(own.expand(20_000, -1, -1), context.expand(20_000, -1, -1), None)
        torch.testing.assert_close(many.mean(0, keepdim=True), attention.eval()(own, context, None), rtol=0, atol=0.03)
    assert len(many[:, 0].unique(dim=0)) > 50
