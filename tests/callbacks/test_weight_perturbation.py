"""Weight perturbation on a small regression that has nothing to do with medical images."""

from __future__ import annotations

import csv
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RAdam
from torch.utils.data import DataLoader, TensorDataset

from callbacks import weight_perturbation
from callbacks.weight_perturbation import WeightPerturbation, perturbation, statistics

LR, DELTA, FIXED, EPSILON = 0.02, 0.05, 0.05, 1e-3
State = dict[str, Tensor]


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Linear(4, 6)
        self.upper = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.upper(torch.tanh(self.lower(x)))
        return out


class Regressor(LightningModule):
    def __init__(self, optimizer: type[Optimizer] = AdamW, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk = Trunk()
        self.head = nn.Linear(3, 1)
        self.optimizer, self.options = optimizer, {"lr": LR, **(options or {})}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        x, y = batch
        return mse_loss(self.head(self.trunk(x)), y)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters(), **self.options)


class Recorder(Callback):
    """The weights before each micro-batch, at its forward, and at its end."""

    def __init__(self) -> None:
        self.before: list[State] = []
        self.during: list[State] = []
        self.after: list[State] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        (self.during if self.during_turn else self.before).append(weights(pl_module))

    during_turn = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.after.append(weights(pl_module))


class Inside(Recorder):
    """The same recorder, placed after the perturbation in the list of callbacks."""

    during_turn = True


def weights(module: nn.Module) -> State:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(5, 4, generator=generator), torch.randn(5, 1, generator=generator)) for _ in range(count)]


def fit(
    module: LightningModule,
    callbacks: list[Callback],
    steps: int,
    *,
    epochs: int = 1,
    accumulate: int = 1,
    checkpoints: bool = False,
    precision: Literal["32-true", "bf16-true", "bf16-mixed"] = "32-true",
    resume: Path | None = None,
    log_every: int = 1,
    logger: Logger | None = None,
) -> Trainer:
    x, y = (torch.cat(column) for column in zip(*batches(steps), strict=True))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=logger or False,
        log_every_n_steps=log_every,
        callbacks=callbacks,
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        precision=precision,
        enable_checkpointing=checkpoints,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=5), ckpt_path=resume)
    return trainer


def by_hand(steps: int, accumulate: int = 1, norm: str = "encoder", adaptive: bool = True) -> list[State]:
    """The algorithm in a plain loop, tensor by tensor: the weights after each micro-batch."""
    module = Regressor()
    optimizer = AdamW(module.parameters(), lr=LR)
    trace = []
    for index, (x, y) in enumerate(batches(steps)):
        clean = weights(module)
        shifted = [p for p in module.trunk.parameters() if p in optimizer.state]
        with torch.no_grad():
            moments = [optimizer.state[p]["exp_avg"] for p in shifted]
            sizes = (
                [torch.linalg.vector_norm(p) for p in shifted],
                [torch.linalg.vector_norm(m) for m in moments],
            )
            for i, (p, m) in enumerate(zip(shifted, moments, strict=True)):
                if not adaptive:
                    r = m * FIXED
                elif norm == "encoder":
                    total = [torch.linalg.vector_norm(torch.stack(size)) for size in sizes]
                    r = m * (DELTA * total[0] / total[1])
                else:
                    r = m * (DELTA * sizes[0][i] / sizes[1][i])
                bound = p.abs() * EPSILON
                clean_p = p.clone()
                p.copy_(clean_p + torch.minimum(torch.maximum(r, -bound), bound))
        (mse_loss(module.head(module.trunk(x)), y) / accumulate).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(clean[name])
        if (index + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
        trace.append(weights(module))
    return trace


def tensors() -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (11,), (2, 3, 4)]
    draw = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2)]
    return draw[0], [m * scale for m, scale in zip(draw[1], (1e-4, 3.0, 50.0), strict=True)]


def call(
    theta: list[Tensor],
    m: list[Tensor],
    *,
    adaptive: bool = True,
    delta: float = DELTA,
    epsilon: float = 1e6,
    norm: Literal["encoder", "tensor"] = "encoder",
) -> list[Tensor]:
    return perturbation(theta, m, adaptive=adaptive, delta=delta, fixed_weight=FIXED, epsilon=epsilon, norm=norm)


def flat(values: list[Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values])


def test_unclipped_norm_over_the_encoder() -> None:
    theta, m = tensors()
    r = flat(call(theta, m))
    torch.testing.assert_close(r.norm(), DELTA * flat(theta).norm())
    torch.testing.assert_close(r / r.norm(), flat(m) / flat(m).norm())


def test_unclipped_norm_of_each_tensor() -> None:
    theta, m = tensors()
    for weight, moment, r in zip(theta, m, call(theta, m, norm="tensor"), strict=True):
        torch.testing.assert_close(r, DELTA * weight.norm() * moment / moment.norm())


@pytest.mark.parametrize("norm", ["encoder", "tensor"])
@pytest.mark.parametrize("adaptive", [True, False])
def test_clipped_to_a_share_of_each_weight(norm: Literal["encoder", "tensor"], adaptive: bool) -> None:
    theta, m = tensors()
    loose = flat(call(theta, m, norm=norm, adaptive=adaptive))
    clipped = call(theta, m, norm=norm, adaptive=adaptive, epsilon=0.02)
    bound = 0.02 * flat(theta).abs()
    assert (flat(clipped).abs() <= bound).all()
    assert torch.equal(flat(clipped).sign(), flat(m).sign())
    torch.testing.assert_close(flat(clipped), torch.where(loose.abs() > bound, bound * loose.sign(), loose))
    ratio, share = statistics(theta, clipped, 0.02)
    torch.testing.assert_close(ratio, flat(clipped).norm() / flat(theta).norm())
    torch.testing.assert_close(share, (loose.abs() >= bound).float().mean())
    assert 0 < share < 1


@pytest.mark.parametrize("norm", ["encoder", "tensor"])
def test_far_above_epsilon_delta_hardly_matters_and_epsilon_sets_the_size(norm: Literal["encoder", "tensor"]) -> None:
    """Gaussian weights and moments; the bound is met where |m / theta| > epsilon / delta in units of their norms."""
    generator = torch.Generator().manual_seed(0)
    theta, m = ([torch.randn(100, 100, generator=generator) for _ in range(2)] for _ in range(2))

    def ratio(delta: float, epsilon: float) -> float:
        return float(statistics(theta, call(theta, m, norm=norm, delta=delta, epsilon=epsilon), epsilon)[0])

    assert ratio(0.005, 1e-3) > 0.9e-3
    assert ratio(0.5, 1e-3) < 1e-3 * (1 + 1e-5)
    for epsilon in (1e-4, 1e-3):
        assert ratio(0.05, epsilon) == pytest.approx(epsilon, rel=0.02)
    # Below epsilon it is delta that sets the size.
    assert ratio(1e-4, 1e-3) == pytest.approx(1e-4, rel=0.1)


def test_fixed_weight() -> None:
    theta, m = tensors()
    torch.testing.assert_close(call(theta, m, adaptive=False), [0.05 * moment for moment in m])


def test_zero_and_vanishing_moments_give_no_nan() -> None:
    theta, _ = tensors()
    zeros = [torch.zeros_like(t) for t in theta]
    tiny = [z.clone() for z in zeros]
    tiny[0][0, 0] = 1e-42
    norms: tuple[Literal["encoder", "tensor"], ...] = ("encoder", "tensor")
    for norm in norms:
        assert not flat(call(theta, zeros, norm=norm)).any()
        r = flat(call(theta, tiny, norm=norm, epsilon=EPSILON))
        assert r.isfinite().all()
        assert not r[1:].any()
    assert call([], []) == []


@pytest.mark.parametrize(("norm", "adaptive"), [("encoder", True), ("tensor", True), ("encoder", False)])
def test_training_equals_the_plain_loop_to_the_bit(
    norm: Literal["encoder", "tensor"], adaptive: bool, tmp_path: Path
) -> None:
    recorder = Recorder()
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    callback = WeightPerturbation(["trunk"], norm=norm, adaptive=adaptive)
    fit(Regressor(), [callback, recorder, saver], 6, checkpoints=True)
    expected = by_hand(6, norm=norm, adaptive=adaptive)
    assert [same(one, two) for one, two in zip(recorder.after, expected, strict=True)] == [True] * 6
    for step, state in enumerate(expected, start=1):
        assert same(torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)["state_dict"], state)


def test_accumulation_equals_the_plain_loop_to_the_bit() -> None:
    recorder, inside = Recorder(), Inside()
    fit(Regressor(), [recorder, WeightPerturbation(["trunk"]), inside], 8, accumulate=2)
    expected = by_hand(8, accumulate=2)
    assert [same(one, two) for one, two in zip(recorder.after, expected, strict=True)] == [True] * 8
    shifted = [not same(one, two) for one, two in zip(recorder.before, inside.during, strict=True)]
    assert shifted == [False, False] + [True] * 6


def test_a_step_is_computed_once_whatever_its_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(parameters: list[Tensor], *args: Any, **kwargs: Any) -> list[Tensor]:  # noqa: ANN401
        calls.append(len(parameters))
        return perturbation(parameters, *args, **kwargs)

    monkeypatch.setattr(weight_perturbation, "perturbation", counted)
    fit(Regressor(), [WeightPerturbation(["trunk"])], 12, accumulate=4)
    assert calls == [4, 4]  # tensors, in the second and the third step; in the first there is no moment


def test_statistics_are_those_of_the_logged_steps_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    computed: list[int] = []

    def counted(parameters: list[Tensor], *args: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        computed.append(len(parameters))
        return statistics(parameters, *args)

    def logged(every: int) -> dict[str, tuple[str, str]]:
        folder = tmp_path / str(every)
        callbacks: list[Callback] = [WeightPerturbation(["trunk"])]
        fit(Regressor(), callbacks, 24, accumulate=2, log_every=every, logger=CSVLogger(folder, name="", version=""))
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return {row["step"]: (row["perturbation/norm_ratio"], row["perturbation/clipped_share"]) for row in rows}

    always = logged(1)
    monkeypatch.setattr(weight_perturbation, "statistics", counted)
    sometimes = logged(4)
    assert len(computed) == 3  # of 12 steps
    assert sometimes == {step: always[step] for step in ("3", "7", "11")}


def test_parameters_frozen_in_mid_training_keep_still() -> None:
    class Freezing(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
            assert isinstance(pl_module, Regressor)
            pl_module.trunk.upper.requires_grad_(trainer.global_step < 2)

    recorder, inside = Recorder(), Inside()
    fit(Regressor(), [Freezing(), recorder, WeightPerturbation(["trunk"]), inside], 3)
    for index, moving in ((1, True), (2, False)):
        one, two = (states[index]["trunk.upper.weight"] for states in (recorder.before, inside.during))
        assert torch.equal(one, two) is not moving
    assert not same(recorder.before[2], inside.during[2])  # the lower layer still moves


def test_first_step_frozen_parameters_and_other_modules_are_left_alone() -> None:
    module = Regressor()
    module.trunk.upper.requires_grad_(False)
    recorder, inside = Recorder(), Inside()
    trainer = fit(module, [recorder, WeightPerturbation(["trunk"]), inside], 3)
    assert same(recorder.before[0], inside.during[0])
    for before, during in zip(recorder.before[1:], inside.during[1:], strict=True):
        moved = {name for name in before if not torch.equal(before[name], during[name])}
        assert moved == {"trunk.lower.weight", "trunk.lower.bias"}
        for name in moved:
            slack = 1e-6 * before[name].abs()
            assert ((during[name] - before[name]).abs() <= EPSILON * before[name].abs() + slack).all()
    assert 0 < trainer.callback_metrics["perturbation/norm_ratio"] <= EPSILON * 1.001
    assert 0 < trainer.callback_metrics["perturbation/clipped_share"] <= 1


OPTIMIZERS: list[tuple[type[Optimizer], dict[str, bool]]] = [
    (Adam, {}),
    (AdamW, {"foreach": True}),
    (AdamW, {"fused": True}),
    (NAdam, {}),
    (RAdam, {}),
]


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_optimizers_that_keep_a_first_moment(optimizer: type[Optimizer], options: dict[str, bool]) -> None:
    recorder, inside = Recorder(), Inside()
    module = Regressor(optimizer, dict(options))
    fit(module, [recorder, WeightPerturbation(["trunk"]), inside], 3)
    for index in (1, 2):
        assert not same(recorder.before[index], inside.during[index])
        assert same(recorder.before[index], recorder.after[index - 1])


def test_optimizer_without_a_first_moment_is_refused_after_its_first_step() -> None:
    module = Regressor(SGD, {"momentum": 0.9})
    with pytest.raises(MisconfigurationException, match="SGD keeps none"):
        fit(module, [WeightPerturbation(["trunk"])], 3)
    assert module.trainer.global_step == 0


class Skipping(Regressor):
    """No loss at the third micro-batch."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        return None if batch_idx == 2 else super().training_step(batch, batch_idx)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_restored_where_the_step_is_skipped(accumulate: int) -> None:
    recorder, inside = Recorder(), Inside()
    module = Skipping(options={"weight_decay": 0.0})
    fit(
        module,
        [recorder, WeightPerturbation(["trunk"]), inside],
        6,
        accumulate=accumulate,
        epochs=2,
    )
    index = 8 if accumulate == 4 else 2  # at 2 with accumulation there is no moment yet
    assert not same(recorder.before[index], inside.during[index])
    assert same(inside.after[index], recorder.before[index])


class Failing(Regressor):
    """Raises in the third forward, while the weights are shifted."""

    error: BaseException

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        if batch_idx == 2:
            raise self.error
        return super().training_step(batch, batch_idx)


@pytest.fixture
def keep_sigint() -> Iterator[None]:
    """Lightning ignores SIGINT for good once it has seen one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("keep_sigint")
@pytest.mark.parametrize("error", [RuntimeError("third batch"), KeyboardInterrupt()])
def test_restored_after_an_exception(error: BaseException) -> None:
    module = Failing()
    module.error = error
    recorder, inside = Recorder(), Inside()
    with pytest.raises(SystemExit if isinstance(error, KeyboardInterrupt) else RuntimeError):
        fit(module, [recorder, WeightPerturbation(["trunk"]), inside], 4)
    assert not same(recorder.before[2], inside.during[2])
    assert same(weights(module), recorder.before[2])
    assert not module._state_dict_hooks


class Saving(Regressor):
    """Writes checkpoints from inside `training_step`, while the weights are shifted."""

    folder: Path

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        prediction = self.head(self.trunk(batch[0]))
        for weights_only in (False, True):
            self.trainer.save_checkpoint(self.folder / f"{batch_idx}-{weights_only}.ckpt", weights_only)
        return mse_loss(prediction, batch[1])


def test_checkpoint_written_while_perturbed_holds_the_clean_weights(tmp_path: Path) -> None:
    module = Saving()
    module.folder = tmp_path
    recorder, inside = Recorder(), Inside()
    fit(module, [recorder, WeightPerturbation(["trunk"]), inside], 4)
    for index in range(4):
        for weights_only in (False, True):
            saved = torch.load(tmp_path / f"{index}-{weights_only}.ckpt", weights_only=True)["state_dict"]
            assert same(saved, recorder.before[index])
            assert index == 0 or not same(saved, inside.during[index])
    expected = by_hand(4)  # and the training did not notice
    assert [same(one, two) for one, two in zip(recorder.after, expected, strict=True)] == [True] * 4


def test_resumed_training_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = Regressor()
    fit(whole, [WeightPerturbation(["trunk"]), saver], 3, checkpoints=True, epochs=2)
    resumed, recorder, inside = Regressor(), Recorder(), Inside()
    callbacks = [recorder, WeightPerturbation(["trunk"]), inside]
    fit(resumed, callbacks, 3, epochs=2, resume=tmp_path / "step=3.ckpt")
    assert not same(recorder.before[0], inside.during[0])  # the moments came with the checkpoint
    assert same(weights(resumed), weights(whole))


class Manual(Regressor):
    """Two optimizers, stepped by the module: with Lightning's backward, or around it."""

    around = False

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        opened = self.optimizers(use_pl_optimizer=not self.around)
        assert isinstance(opened, list)
        loss = mse_loss(self.head(self.trunk(batch[0])), batch[1])
        for optimizer in opened:
            optimizer.zero_grad()
        if self.around:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.manual_backward(loss)
        for optimizer in opened:
            optimizer.step()

    def configure_optimizers(self) -> tuple[Optimizer, Optimizer]:  # type: ignore[override]
        return AdamW(self.head.parameters(), lr=LR), AdamW(self.trunk.parameters(), lr=LR)


def test_manual_optimization_with_two_optimizers() -> None:
    recorder = Recorder()
    fit(Manual(), [WeightPerturbation(["trunk"]), recorder], 4)
    expected = by_hand(4)
    assert [same(one, two) for one, two in zip(recorder.after, expected, strict=True)] == [True] * 4


def test_manual_step_on_shifted_weights_is_refused() -> None:
    module = Manual()
    module.around = True
    with pytest.raises(MisconfigurationException, match="manual_backward"):
        fit(module, [WeightPerturbation(["trunk"])], 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trunc", ["'trunk'", "'head'"]),
        ("trunk.uper", ["'trunk.upper'", "'trunk.lower'"]),
        ("head.x", ["nothing"]),
    ],
)
def test_unknown_module_lists_what_there_is(name: str, said: list[str]) -> None:
    with pytest.raises(MisconfigurationException) as caught:
        fit(Regressor(), [WeightPerturbation([name])], 1)
    assert all(word in str(caught.value) for word in [name, *said])


def test_weights_too_coarse_for_epsilon_are_refused() -> None:
    with pytest.raises(MisconfigurationException, match="lost in rounding"):
        fit(Regressor(), [WeightPerturbation(["trunk"])], 1, precision="bf16-true")


@pytest.mark.parametrize(
    "arguments",
    [
        {"modules": "trunk"},
        {"modules": []},
        {"delta": 0.0},
        {"fixed_weight": -1.0},
        {"epsilon": 0.0},
        {"norm": "l2"},
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        WeightPerturbation(**arguments)
