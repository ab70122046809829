"""Modality coordination on a small model of sound and smell."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from callbacks.modality_coordination import (
    ModalityCoordination,
    coefficients,
    modulate,
    ratios,
    step_seed,
    touched_rows,
)

BETA = 0.1
Gradients = dict[str, Tensor]


class TwoTowers(LightningModule):
    """Sound is a linear layer, smell an embedding of 50 words; each has its half of the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.sound = nn.Linear(4, 6)
        self.smell = nn.Embedding(50, 6)
        self.head = nn.Linear(12, 3)
        with torch.no_grad():
            self.head.weight[:, :6] *= 8  # one of the two is clearly ahead
        self.sums = {"sound": torch.zeros(()), "smell": torch.zeros(())}
        self.seen: list[Gradients] = []

    def modality_parameters(self) -> Mapping[str, Iterable[Parameter]]:
        return {"sound": self.sound.parameters(), "smell": self.smell.parameters()}

    def modality_contributions(self) -> Mapping[str, Tensor]:
        return self.sums

    def parts(self, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        sound, smell = self.sound(batch[0]), self.smell(batch[1]).mean(dim=1)
        cut = torch.split(self.head.weight, 6, dim=1)
        return sound @ cut[0].T + self.head.bias / 2, smell @ cut[1].T + self.head.bias / 2

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        parts, label = self.parts(batch), batch[2]
        for name, logits in zip(("sound", "smell"), parts, strict=True):
            self.sums[name] = self.sums[name] + logits.detach().softmax(-1).gather(1, label[:, None]).sum()
        return cross_entropy(parts[0] + parts[1], label)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.seen.append(gradients(self))
        self.sums = {name: torch.zeros(()) for name in self.sums}

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=0.1)


class Peek(Callback):
    """The gradients before the coordination, and what it logged after each step."""

    def __init__(self) -> None:
        self.raw: list[Gradients] = []
        self.logged: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.raw.append(gradients(pl_module))

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.logged.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def gradients(module: nn.Module) -> Gradients:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def samples(count: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(count, 4, generator=generator),
        torch.randint(0, 20, (count, 3), generator=generator),  # words 20 to 49 never occur
        torch.randint(0, 3, (count,), generator=generator),
    ]


def fit(
    module: LightningModule,
    *callbacks: Callback,
    batch: int = 8,
    accumulate: int = 1,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
) -> Peek:
    peek = Peek()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[peek, *callbacks],
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        precision=precision,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(*samples()), batch_size=batch))
    return peek


def pair(one: float, two: float) -> dict[str, Tensor]:
    return {"one": torch.tensor(one), "two": torch.tensor(two)}


@pytest.mark.parametrize(
    ("one", "two", "rho", "k"),
    [
        (3.0, 1.5, (2.0, 0.5), (1 - math.tanh(0.2), 1.0)),
        (1.0, 4.0, (0.25, 4.0), (1.0, 1 - math.tanh(0.4))),
        (2.0, 2.0, (1.0, 1.0), (1.0, 1.0)),
        (0.0, 0.0, (1.0, 1.0), (1.0, 1.0)),
        (0.7, 0.0, (math.inf, 0.0), (0.0, 1.0)),
        (0.0, 0.7, (0.0, math.inf), (1.0, 0.0)),
    ],
)
def test_ratios_and_coefficients(one: float, two: float, rho: tuple[float, float], k: tuple[float, float]) -> None:
    got = ratios(pair(one, two)), coefficients(pair(one, two), BETA)
    assert [list(values) for values in got] == [["one", "two"]] * 2
    torch.testing.assert_close(torch.stack(list(got[0].values())), torch.tensor(rho))
    torch.testing.assert_close(torch.stack(list(got[1].values())), torch.tensor(k))


def test_only_two_modalities_are_defined() -> None:
    with pytest.raises(ValueError, match="two modalities, not 3"):
        ratios({**pair(1, 2), "three": torch.tensor(1.0)})


def test_noise_has_the_spread_of_the_unscaled_gradient() -> None:
    gradient = 5 + 3 * torch.randn(200, 500, generator=torch.Generator().manual_seed(0))
    changed = gradient.clone()
    modulate([changed], 0.25, torch.Generator().manual_seed(1))
    noise = changed - 0.25 * gradient
    standard_error = 3 / math.sqrt(noise.numel())
    assert abs(noise.mean()) < 4 * standard_error
    assert abs(noise.std() - gradient.std()) < 4 * standard_error
    within = [(noise.abs() < width * gradient.std()).float().mean().item() for width in (1, 2)]
    assert within == pytest.approx([0.6827, 0.9545], abs=0.01)  # a normal distribution


def test_without_noise_only_scaled() -> None:
    gradients = [torch.randn(4, 3), torch.randn(1)]
    wanted = [g / 2 for g in gradients]
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    modulate(gradients, 0.5, generator, noise=False)
    modulate(gradients[1:], 1.0, generator)  # one element: no spread
    assert all(map(torch.equal, gradients, wanted))
    assert torch.equal(generator.get_state(), state)


def test_many_gradients_at_once_are_one_after_the_other_with_the_same_draws() -> None:
    """Eq. 13 tensor by tensor, to the bit; of a vocabulary only the rows with a gradient."""
    shapes = [(50, 6), (1,), (7, 5), (3,), (2, 3, 4)]
    gradients = [torch.randn(shape) for shape in shapes]
    gradients[0][20:] = 0.0
    gradients[0][3] = torch.tensor([0.0, 0.0, 1e-40, 0.0, 0.0, 0.0])  # its square is zero
    draws = torch.Generator().manual_seed(4)
    wanted = []
    for g in gradients:
        scaled = g * 0.7
        if len(g.flatten()) > 1:
            kept = g[:20] if g is gradients[0] else g
            scaled[: len(kept)] += torch.randn(kept.shape, generator=draws) * g.std()
        wanted.append(scaled)
    rows = touched_rows(gradients[:1])
    assert rows[gradients[0]].tolist() == list(range(20))
    modulate(gradients, 0.7, torch.Generator().manual_seed(4), rows=rows)
    assert all(map(torch.equal, gradients, wanted))


def test_seeds_of_steps_do_not_collide() -> None:
    pairs = [(seed, step) for seed in [*range(60), 2**32 + 5] for step in range(60)]
    assert len({step_seed(*pair) for pair in pairs}) == len(pairs)
    assert step_seed(3, 4) == step_seed(3, 4)


def expected_k(module: TwoTowers, rows: slice) -> dict[str, float]:
    """Eq. 10 to 12, sample by sample."""
    sums = [0.0, 0.0]
    with torch.no_grad():
        for index in range(rows.start, rows.stop):
            sample = [column[index : index + 1] for column in samples()]
            for u, logits in enumerate(module.parts(sample)):
                exps = [math.exp(value) for value in logits[0].tolist()]
                sums[u] += exps[int(sample[2])] / sum(exps)
    rho = [sums[0] / sums[1], sums[1] / sums[0]]
    return {
        name: 1 - math.tanh(BETA * rho[u]) if rho[u] > rho[1 - u] else 1.0 for u, name in enumerate(("sound", "smell"))
    }


@pytest.mark.parametrize("accumulate", [1, 4])
def test_one_modulation_per_step_whatever_the_accumulation(accumulate: int) -> None:
    module = TwoTowers()
    start = copy.deepcopy(module)
    peek = fit(module, ModalityCoordination(noise="none"), batch=8 // accumulate, accumulate=accumulate)
    assert len(peek.raw) == len(module.seen) == 2
    k = expected_k(start, slice(0, 8))
    assert sorted(k.values())[0] < 1 == sorted(k.values())[1]
    first = next(entry for entry in peek.logged if entry)
    for name, factor in k.items():
        assert first[f"coordination/k_{name}"] == pytest.approx(factor, rel=1e-5)
    assert first["coordination/rho_sound"] * first["coordination/rho_smell"] == pytest.approx(1)
    whole = cross_entropy(sum(start.parts([c[:8] for c in samples()])), samples()[2][:8])  # type: ignore[arg-type]
    whole.backward()  # type: ignore[no-untyped-call]
    for name, gradient in gradients(start).items():
        factor = k.get(name.split(".")[0], 1.0)
        torch.testing.assert_close(module.seen[0][name], factor * gradient)


def noised(raw: Gradients, changed: Gradients, k: Mapping[str, float]) -> set[str]:
    return {
        name.split(".")[0]
        for name in raw
        if not torch.allclose(changed[name], k.get(name.split(".")[0], 1.0) * raw[name], atol=1e-7)
    }


@pytest.mark.parametrize("noise", ["modulated", "both", "none"])
def test_who_gets_noise(noise: Literal["modulated", "both", "none"]) -> None:
    module = TwoTowers()
    peek = fit(module, ModalityCoordination(noise=noise))
    k = {u: peek.logged[0][f"coordination/k_{u}"] for u in ("sound", "smell")}
    slowed = {u for u, factor in k.items() if factor < 1}
    assert len(slowed) == 1
    allowed = {"modulated": slowed, "both": {"sound", "smell"}, "none": set()}[noise]
    assert noised(peek.raw[0], module.seen[0], k) == allowed


def test_embedding_rows_without_a_gradient_stay_still() -> None:
    module = TwoTowers()
    before = module.smell.weight.detach().clone()
    peek = fit(module, ModalityCoordination(noise="both"))
    for raw, changed in zip(peek.raw, module.seen, strict=True):
        still = (raw["smell.weight"] == 0).all(dim=1)
        assert 30 <= still.sum() < 50
        assert not changed["smell.weight"][still].any()
        assert (changed["smell.weight"] != raw["smell.weight"])[~still].all()
    assert torch.equal(module.smell.weight[20:], before[20:])


def test_noise_is_a_function_of_seed_and_step() -> None:
    def noise(seed: int) -> list[Tensor]:
        module = TwoTowers()
        peek = fit(module, ModalityCoordination(noise="both", seed=seed))
        k = [entry["coordination/k_sound"] for entry in peek.logged]
        changes = [
            (changed["sound.weight"] - factor * raw["sound.weight"]) / raw["sound.weight"].std()
            for raw, changed, factor in zip(peek.raw, module.seen, k, strict=True)
        ]
        return changes

    torch.manual_seed(0)
    first, again, other = noise(1), noise(1), noise(2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.allclose(first[0], first[1], atol=0.1)
    assert not torch.allclose(first[0], other[0], atol=0.1)


def test_global_random_state_is_left_alone() -> None:
    module = TwoTowers()
    fit(module, ModalityCoordination(noise="none"))
    state = torch.get_rng_state()
    module = TwoTowers()
    fit(module, ModalityCoordination(noise="both"))
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_that_are_not_finite_are_left_alone() -> None:
    class Overflowing(TwoTowers):
        def on_after_backward(self) -> None:
            assert self.sound.bias.grad is not None
            self.sound.bias.grad[0] = math.inf

    module = Overflowing()
    peek = fit(module, ModalityCoordination(noise="both"))
    assert all(torch.equal(peek.raw[0][name], module.seen[0][name]) for name in peek.raw[0])


def test_frozen_parameters_are_skipped() -> None:
    module = TwoTowers()
    module.sound.requires_grad_(False)
    fit(module, ModalityCoordination(noise="both"))
    assert module.sound.weight.grad is None


class OwnSums(Callback):
    """What the module holds at the optimizer step."""

    def __init__(self) -> None:
        self.sums: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, TwoTowers)
        self.sums.append({name: float(value) for name, value in pl_module.sums.items()})


def test_contributions_are_summed_over_ranks_and_stay_the_modules_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reduce(self: object, tensor: Tensor, *, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        # In place, as all_reduce works; Lightning itself reduces lengths, which are scalars.
        return tensor.mul_(torch.tensor([1.0, 3.0])) if tensor.ndim else tensor

    monkeypatch.setattr(SingleDeviceStrategy, "reduce", reduce)
    before, after = OwnSums(), OwnSums()
    peek = fit(TwoTowers(), before, ModalityCoordination(noise="none"), after)
    assert before.sums == after.sums
    assert peek.logged[0]["coordination/contribution_sound"] == pytest.approx(before.sums[0]["sound"])
    assert peek.logged[0]["coordination/contribution_smell"] == pytest.approx(3 * before.sums[0]["smell"])


class Plain(LightningModule):
    """Has no modalities."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch[0]).mean()
        return loss

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=0.1)


class Overlapping(TwoTowers):
    def modality_parameters(self) -> Mapping[str, Iterable[Parameter]]:
        return {"sound": self.parameters(), "smell": self.smell.parameters()}


class Three(TwoTowers):
    def modality_parameters(self) -> Mapping[str, Iterable[Parameter]]:
        return {**super().modality_parameters(), "touch": self.head.parameters()}


class Manual(TwoTowers):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class PerSample(TwoTowers):
    def modality_contributions(self) -> Mapping[str, Tensor]:
        return {name: value.expand(8) for name, value in self.sums.items()}


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Plain, ["labelled data, and Plain is none", "modality_parameters()", "modality_contributions()"]),
        (Overlapping, ["both of", "smell.weight"]),
        (Three, ["two modalities", "'touch': 2"]),
        (Manual, ["automatic optimization"]),
        (PerSample, ["one scalar", "(8,)"]),
    ],
)
def test_modules_that_cannot_be_coordinated_are_told_why(module: type[LightningModule], said: list[str]) -> None:
    with pytest.raises(MisconfigurationException) as caught:
        fit(module(), ModalityCoordination())
    assert all(word in str(caught.value) for word in said)


@pytest.mark.parametrize("arguments", [{"beta": 0.0}, {"noise": "some"}, {"seed": -1}])
def test_arguments_out_of_range_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ModalityCoordination(**arguments)
