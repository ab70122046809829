"""Parameter groups and schedules against their definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter
from torch.optim import SGD

from umd.optim import OptimizerConfig, ParameterGroup, Schedule, build_adamw, build_schedule, check_partition


class Network(nn.Module):
    """Decayed: a matrix, an embedding, a 4-D kernel. Not decayed: vectors, whatever their names."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.embedding = nn.Embedding(4, 3)
        self.kernel = nn.Conv2d(1, 1, 2)
        self.ln_1 = nn.LayerNorm(3)
        self.scale = Parameter(torch.ones(()))


def test_decay_falls_on_tensors_of_two_dimensions_and_more() -> None:
    network = Network()
    config = OptimizerConfig(lr=1e-3, weight_decay=0.3, betas=(0.8, 0.9), eps=1e-7)
    optimizer = build_adamw([ParameterGroup("all", list(network.parameters()))], config)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(parameter)] for name, parameter in network.named_parameters()} == {
        "linear.weight": 0.3,
        "embedding.weight": 0.3,
        "kernel.weight": 0.3,
        "linear.bias": 0.0,
        "kernel.bias": 0.0,
        "ln_1.weight": 0.0,
        "ln_1.bias": 0.0,
        "scale": 0.0,
    }
    assert all(group["betas"] == (0.8, 0.9) and group["eps"] == 1e-7 for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("device", "wanted", "fused"), [("cpu", True, True), ("cuda", True, True), ("meta", True, None)]
)
def test_fused_where_there_is_a_kernel_and_it_is_wanted(device: str, wanted: bool, fused: bool | None) -> None:
    with FakeTensorMode():
        weight = Parameter(torch.empty(2, 2, device=device))
        groups = [ParameterGroup("all", [weight])]
        assert [build_adamw(groups, OptimizerConfig(), on).defaults["fused"] for on in (wanted, False)] == [fused, None]


def test_groups_learn_at_their_multiple() -> None:
    network = Network()
    network.kernel.requires_grad_(False)
    groups = [
        ParameterGroup("body", [*network.linear.parameters(), *network.kernel.parameters()]),
        ParameterGroup("head", list(network.embedding.parameters()), 50.0),
    ]
    optimizer = build_adamw(groups, OptimizerConfig(lr=2e-6))
    found = {group["name"]: (group["lr"], len(group["params"])) for group in optimizer.param_groups}
    # The frozen kernel is in none, and no group is empty.
    assert found == {"body": (2e-6, 1), "body/no_decay": (2e-6, 1), "head": (pytest.approx(1e-4), 1)}


def test_a_parameter_stands_in_exactly_one_group() -> None:
    network = Network()
    parameters = dict(network.named_parameters())
    check_partition(network, [ParameterGroup("all", list(parameters.values()))])
    with pytest.raises(ValueError, match=r"ln_1\.bias stands in two"):
        check_partition(
            network,
            [ParameterGroup("all", list(parameters.values())), ParameterGroup("more", [parameters["ln_1.bias"]])],
        )
    with pytest.raises(ValueError, match=r"in no parameter group: scale, kernel\.weight"):
        rest = [value for name, value in parameters.items() if name not in ("kernel.weight", "scale")]
        check_partition(network, [ParameterGroup("rest", rest)])
    network.kernel.weight.requires_grad_(False)
    network.scale.requires_grad_(False)
    check_partition(network, [ParameterGroup("rest", rest)])


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build_adamw([ParameterGroup("all", [Parameter(torch.ones(2), requires_grad=False)])], OptimizerConfig())


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 0.25])
def test_schedule_is_warm_up_then_decay_to_zero(schedule: Schedule, warmup_ratio: float) -> None:
    steps, warmup = 20, {0.0: 0, 0.1: 2, 0.25: 5}[warmup_ratio]
    optimizer = SGD([{"params": [Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 5.0)])
    config = OptimizerConfig(schedule=schedule, warmup_ratio=warmup_ratio)
    scheduler = build_schedule(optimizer, config, steps)
    for step in range(steps + 1):
        done = (step - warmup) / (steps - warmup)
        after = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant_with_warmup": 1.0}
        wanted = step / warmup if step < warmup else after[schedule]
        assert scheduler.get_last_lr() == pytest.approx([wanted, 5 * wanted], abs=1e-12), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("setting", "value"), [("schedule", "triangle"), ("warmup_ratio", 1.0), ("warmup_ratio", -0.1), ("lr", 0.0)]
)
def test_a_wrong_setting_is_named(setting: str, value: Any) -> None:  # noqa: ANN401 - of any type
    with pytest.raises(ValueError, match=f"{setting} is '?{value}"):
        OptimizerConfig(**{setting: value})
