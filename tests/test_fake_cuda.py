"""Whether the stages run on a GPU, asked on a machine without one.

Torch's fake tensors claim to lie on "cuda", hold no values, and refuse to be mixed with tensors of another device. So a
tensor that a step, a callback or an optimizer group makes on the wrong device fails here, on any machine. Only forwards
are run: a fake backward asks the driver, and generators exist on real devices alone, so random numbers are drawn
without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torchmetrics import Metric

from callbacks.finite_guard import all_finite
from callbacks.modality_coordination import coefficients, modulate, touched_rows
from callbacks.weight_perturbation import perturbation, statistics
from tests.callbacks.test_callbacks_everywhere import STAGES
from tests.synthetic import ANSWERS, answer_tokens, vqa_batch
from umd.batch import ClassificationBatch, ImageTextBatch, RetrievalBatch
from umd.modules.base import Stage
from umd.optim import build_adamw

CUDA = torch.device("cuda", 0)
DRAWN = ("rand", "randn", "randint", "randperm", "multinomial")


class Two(TorchFunctionMode):
    """Whatever number depends on values, which fake tensors have none of: it is two."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if function is Tensor.__getitem__ and isinstance(args[1], Tensor):
            rows, chosen = args
            assert rows.device == chosen.device
            if chosen.dtype == torch.bool:
                return rows.flatten(0, chosen.ndim - 1)[:2]
            if chosen.ndim == 0:
                return rows[0]
        if function is Tensor.nonzero:
            return torch.zeros(2, args[0].ndim, dtype=torch.int64, device=args[0].device)
        if function is torch.unique:
            return args[0][:2], torch.zeros_like(args[0])
        if function is Tensor.scatter_reduce and args[0].dtype == torch.bool:
            raise NotImplementedError("CUDA has no such kernel for bool, which a fake tensor does not know")
        if function in (Tensor.__int__, Tensor.item):
            return 2
        return function(*args, **(kwargs or {}))


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Fake tensors, and random functions that leave their generator out."""

    def without_generator(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, generator=None, **named: function(*args, **named)

    for name in DRAWN:
        monkeypatch.setattr(torch, name, without_generator(getattr(torch, name)))
    monkeypatch.setattr(Stage, "generator", lambda self, *_: SimpleNamespace(device=CUDA))
    with FakeTensorMode() as mode, Two():
        yield mode


def moved(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


def to_cuda(module: nn.Module) -> None:
    """Put a fake tensor on cuda in the place of each parameter and buffer; what two modules share stays shared."""
    made: dict[int, Any] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                new = made.setdefault(id(parameter), nn.Parameter(moved(parameter), parameter.requires_grad))
                part._parameters[name] = new
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = made.setdefault(id(buffer), moved(buffer))
        if isinstance(part, Metric):
            part._device = CUDA


def batch_for(name: str) -> ImageTextBatch:
    batch = vqa_batch(4)
    shared = {field.name: getattr(batch, field.name) for field in fields(ImageTextBatch)}
    if name == "Classification":
        return ClassificationBatch(**shared, labels=tuple(ANSWERS[:4]))
    if name == "Retrieval":
        ids = batch.input_ids[:, None].repeat(1, 3, 1)
        return RetrievalBatch(**shared, negative_input_ids=ids, negative_attention_mask=ids != 0)
    return batch


@contextmanager
def real() -> Iterator[None]:
    """Outside of the fake mode: weights are drawn, and a batch is made, with values."""
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        yield


def stage_on_cuda(name: str) -> Any:  # noqa: ANN401 - steps are told apart by their batches
    with real():
        build: Any = STAGES[name][0]
        module = build()
        if name in ("VQAClassifier", "Classification"):
            module.build_head(ANSWERS)
        elif name == "VQAGenerator":
            module._take_candidates({answer: answer_tokens(answer) for answer in ANSWERS})
    to_cuda(module)
    module._device = CUDA
    module.log = module.log_dict = lambda *args, **named: None
    module._trainer = SimpleNamespace(
        world_size=1,
        training=True,
        global_rank=0,
        current_epoch=0,
        gradient_clip_val=None,
        precision="32-true",
        estimated_stepping_batches=10,
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )
    return module


def fake(batch: ImageTextBatch) -> ImageTextBatch:
    return batch._map(moved)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_makes_nothing_on_another_device(name: str, on_cuda: FakeTensorMode) -> None:
    module = stage_on_cuda(name)
    with real():
        batch = batch_for(name)
    given = fake(batch)
    loss = module.training_step(given, 0)
    assert isinstance(loss, FakeTensor) and loss.device == CUDA and loss.ndim == 0
    with torch.no_grad():
        module.eval()
        module.validation_step(given, 0)
    if hasattr(module, "modality_contributions"):
        contributions = module.modality_contributions()
        assert {value.device for value in contributions.values()} == {CUDA} and len(contributions) == 2
        for factor in coefficients(contributions, 0.1).values():
            assert factor.device == CUDA
    groups = module.parameter_groups()
    assert {p.device for group in groups for p in group.parameters} == {CUDA}
    assert build_adamw(groups, module.optimizer_config, fused=False).param_groups


def test_both_papers_mathematics_stay_on_their_device(on_cuda: FakeTensorMode) -> None:
    weights = [torch.empty(shape, device=CUDA) for shape in ((4, 3), (3,))]
    moments = [torch.empty_like(weight) for weight in weights]
    settings: dict[str, Any] = {"delta": 0.05, "fixed_weight": 0.05, "epsilon": 1e-3}
    for adaptive, norm in ((True, "encoder"), (True, "tensor"), (False, "encoder")):
        shifts = perturbation(weights, moments, adaptive=adaptive, norm=norm, **settings)  # type: ignore[arg-type]
        assert {shift.device for shift in (*shifts, *statistics(weights, shifts, 1e-3))} == {CUDA}
    rows = touched_rows(weights[:1])
    assert rows[weights[0]].device == CUDA
    generator: Any = None
    for chosen in (None, rows):
        modulate(weights, 0.5, generator, rows=chosen)
    assert all_finite(weights).device == CUDA


def test_a_step_that_mixes_devices_is_found(on_cuda: FakeTensorMode) -> None:
    """The test itself: one tensor of the batch that stays on the CPU."""
    module = stage_on_cuda("VQAClassifier")
    with real():
        batch = batch_for("VQAClassifier")
    given = fake(batch)
    stray = replace(given, attention_mask=torch.ones(batch.attention_mask.shape, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="device"):
        module.training_step(stray, 0)
