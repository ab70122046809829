"""Any list of objectives: it trains what it reads and nothing else, and runs each forward once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.synthetic import ENCODER, OPTIMIZER, RECONSTRUCTION, vqa_batch
from umd.files import UserError
from umd.losses.objective import Objective
from umd.losses.views import REACHED, Views, parts
from umd.modules import MRPretrain, TDCalib
from umd.modules.objectives import OBJECTIVES, PRESETS, Preset, ReconstructionConfig
from umd.modules.reconstruction import ReconstructionModule

DEEP = replace(ENCODER, fusion_layers=2)
FOUR = ["mim", "mlm", "feature_mim", "feature_mlm"]
LISTS = [
    *([name] for name in OBJECTIVES),
    *(list(weigh(0.5)) for weigh in PRESETS.values()),
    FOUR,
    ["mim", "feature_mim"],
    ["mlm", "unimodal_mim", "contrastive"],
    ["feature_mlm", "masked_contrastive"],
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pretrain(*objectives: str, kind: type[MRPretrain | TDCalib] = MRPretrain, **settings: Any) -> MRPretrain | TDCalib:  # noqa: ANN401
    """A stage with these objectives; without any, with those that the settings name."""
    return kind(DEEP, OPTIMIZER, replace(RECONSTRUCTION, objectives=list(objectives) or None, **settings))


def loss_of(module: ReconstructionModule, batches: int = 1) -> Tensor:
    return torch.stack([module.total(module.terms(vqa_batch(seed=n), 0, n)) for n in range(batches)]).sum()


def trained(module: ReconstructionModule) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


# What is trained


@pytest.mark.parametrize("kind", [MRPretrain, TDCalib])
@pytest.mark.parametrize("names", LISTS, ids=" ".join)
def test_a_list_trains_exactly_what_its_gradient_reaches(names: list[str], kind: type[MRPretrain | TDCalib]) -> None:
    module = pretrain(*names, kind=kind)
    declared = trained(module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not name.startswith("teacher."))
    loss_of(module).backward()  # type: ignore[no-untyped-call]
    reached = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert declared == reached
    # A key's bias shifts all of a query's scores alike: zero by symmetry, up to rounding.
    idle = {n for n, p in module.named_parameters() if p.grad is not None and not p.grad.any()}
    assert {name for name in idle if not name.endswith(("key.bias", "k_proj.bias"))} == set()


def test_a_frozen_vision_encoder_stays_frozen() -> None:
    module = MRPretrain(replace(DEEP, freeze_vision=True), OPTIMIZER, RECONSTRUCTION)
    assert not any(parameter.requires_grad for parameter in module.encoder.vision.parameters())


def test_without_matching_all_four_terms_and_the_fusion_are_trained() -> None:
    module = pretrain(*FOUR)
    assert list(module.terms(vqa_batch(), 0)) == FOUR
    names = trained(module)
    for name, _ in module.encoder.fusion.named_parameters():
        assert f"encoder.fusion.{name}" in names
    assert not any("pooler" in name for name in names)


def test_the_parts_of_the_encoder_are_a_partition() -> None:
    encoder = pretrain().encoder
    divided = [parameter for part in parts(encoder).values() for parameter in part]
    assert len(divided) == len(set(divided))
    assert set(divided) == set(encoder.parameters())


# What is computed


def forwards(module: ReconstructionModule) -> Counter[str]:
    """How often each network runs in one step; of the pairs to match the encoder computes what is pooled alone."""
    runs: Counter[str] = Counter()
    for name, network in module.named_modules():
        if name in ("encoder", "encoder.vision", "encoder.text", "teacher", "image_decoder.blocks"):
            network.register_forward_hook(lambda *_, name=name: runs.update([name.split(".")[-1]]))
    loss_of(module)
    return runs


@pytest.mark.parametrize(
    ("names", "settings", "wanted"),
    [
        (FOUR, {}, {"encoder": 1, "vision": 1, "text": 1, "teacher": 1, "blocks": 1}),
        (FOUR, {"feature_target": "masked"}, {"encoder": 1, "vision": 1, "text": 1, "teacher": 1, "blocks": 1}),
        ([*FOUR, "itm"], {}, {"encoder": 1, "vision": 2, "text": 2, "teacher": 1, "blocks": 1}),
        (["mim", "mlm"], {}, {"encoder": 1, "vision": 1, "text": 1, "blocks": 1}),
        (["contrastive"], {}, {"vision": 1, "text": 1}),
        (["unimodal_mim", "masked_contrastive"], {}, {"vision": 1, "text": 1, "blocks": 1}),
    ],
)
def test_each_forward_runs_once(names: list[str], settings: dict[str, Any], wanted: dict[str, int]) -> None:
    assert forwards(pretrain(*names, **settings)) == wanted


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_name_for_its_list(preset: Preset) -> None:
    found = []
    listed = dict(reversed(PRESETS[preset](0.3).items()))
    choices: list[dict[str, Any]] = [{"preset": preset, "alpha": 0.3}, {"objectives": listed}]
    for settings in choices:
        torch.manual_seed(0)
        module = MRPretrain(DEEP, OPTIMIZER, replace(RECONSTRUCTION, **settings))
        loss = loss_of(module, 2)
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss, list(module.state_dict()), [p.grad for p in module.parameters() if p.grad is not None]))
    (loss, names, gradients), (other_loss, other_names, other_gradients) = found
    assert torch.equal(loss, other_loss)
    assert names == other_names
    assert len(gradients) == len(other_gradients)
    assert all(torch.equal(a, b) for a, b in zip(gradients, other_gradients, strict=True))


def test_weights_are_those_of_the_settings() -> None:
    one, ten = torch.tensor(1.0), torch.tensor(10.0)
    assert pretrain("mim", "mlm").total({"mim": one, "mlm": ten}).item() == 11
    module = MRPretrain(DEEP, OPTIMIZER, replace(RECONSTRUCTION, objectives={"mim": 0.5, "mlm": 3}))
    assert module.total({"mim": one, "mlm": ten}).item() == 30.5
    # Without feature terms there is nothing that alpha could trade off.
    assert pretrain(preset="m3ae", alpha=0.3).total({"mim": one, "mlm": ten, "itm": 10 * ten}).item() == 111


def test_calibration_leaves_matching_out_of_a_preset_but_not_out_of_a_list() -> None:
    assert list(pretrain(kind=TDCalib).objectives) == FOUR
    assert list(pretrain("mlm", "itm", kind=TDCalib).objectives) == ["mlm", "itm"]
    assert hasattr(pretrain("mlm", kind=TDCalib), "matching_head")


# A new one


class Size(Objective):
    """A term of one's own, with a head of its own: the mean square of projected first tokens."""

    term = "size"
    reads = frozenset({"text_tokens"})

    def heads(self, encoder: Any) -> dict[str, Any]:  # noqa: ANN401 - an encoder
        return {"size_projection": lambda: torch.nn.Linear(encoder.text.width, 3, bias=False)}

    def __call__(self, views: Views) -> Tensor:
        projected: Tensor = views.head("size_projection", torch.nn.Linear)(views.text_tokens[:, 0])
        return projected.square().mean()


def test_a_new_term_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "size", lambda _: Size())
    module = pretrain("size")
    assert {name.split(".")[1] for name in trained(module) if name.startswith("encoder.")} == {"text"}
    assert "size_projection." in module.hands_over
    together = pretrain("mlm", "size", "mim")
    assert list(together.terms(vqa_batch(), 0)) == ["mim", "mlm", "size"]
    # It changes no random weight of the others.
    torch.manual_seed(0)
    without = pretrain("mlm", "mim").state_dict()
    torch.manual_seed(0)
    state = pretrain("mlm", "size", "mim").state_dict()
    assert all(torch.equal(state[name], value) for name, value in without.items())


def test_every_view_is_one_that_can_be_read() -> None:
    for name in REACHED.keys() - {"teacher"}:
        assert hasattr(Views, name)


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": []}, "objectives is empty"),
        ({"objectives": ["mim", "mim"]}, "twice: mim, mim"),
        ({"objectives": ["mim", "feature_mln"]}, r"unknown 'feature_mln'\. Did you mean 'feature_mlm'\? Known: mim, "),
        ({"objectives": {"mim": -1.0}}, "weight of mim is -1.0"),
        ({"objectives": {"mim": float("nan")}}, "weight of mim is nan"),
        ({"objectives": ["mim", "unimodal_mim"]}, "same term"),
        ({"objectives": ["mlm", "feature_mim"], "feature_target": "masked"}, "add mim"),
        ({"objectives": ["contrastive"], "image_mask_ratio": 0.5}, "image_mask_ratio is 0.5, but contrastive"),
        ({"preset": "clip", "image_mask_ratio": 0.5}, "sees whole images"),
        ({"preset": "flip", "image_mask_ratio": 1.0}, "between 0 and 1"),
        ({"decoder_width": 18}, r"decoder_width is 18; .* 4 and of decoder_heads \(6\)"),
        ({"decoder_width": 32}, "decoder_width is 32"),
        ({"preset": "bert"}, "preset is 'bert'; allowed: umd"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ReconstructionConfig(**settings)


def test_shares_of_hidden_patches() -> None:
    usual = {preset: ReconstructionConfig(preset=preset).hidden_share for preset in PRESETS}
    assert usual == {"umd": 0.75, "m3ae": 0.75, "mae": 0.75, "clip": 0.0, "flip": 0.5}
    assert ReconstructionConfig(objectives=["mlm", "masked_contrastive"]).hidden_share == 0.75
    assert ReconstructionConfig(preset="clip", image_mask_ratio=0.0).hidden_share == 0.0
