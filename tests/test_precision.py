"""Both callbacks under every precision, accumulation, clipping and optimizer, against a loop written out."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from callbacks import FiniteGuard, ModalityCoordination, WeightPerturbation
from tests.callbacks.test_callbacks_everywhere import LABELLED, STAGES, Phantoms, phantoms  # noqa: F401 - a fixture
from tests.gradients import Gradients, assert_same_gradients
from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, Batches, quiet_trainer, vqa_batch
from umd.losses.answering import answer_loss
from umd.modules import VQAClassifier, base

CONSTANT = replace(OPTIMIZER, schedule="constant_with_warmup")
BETA, DELTA, EPSILON, CLIP, STEPS = 0.1, 0.05, 1e-3, 1.0, 3
SCALE = 2.0**10


class Tuned(VQAClassifier):
    """With one of AdamW's three implementations."""

    implementation: str

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        chosen: dict[str, Any] = {name: name == self.implementation for name in ("fused", "foreach")}
        return AdamW(self.parameters(), lr=1e-3, **chosen)


def tuned(implementation: str) -> Tuned:
    torch.manual_seed(0)
    module = Tuned(ENCODER, CONSTANT, answers=list(ANSWERS))
    module.implementation = implementation
    return module


class Log(Callback):
    """What was logged at each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if len(self.seen) < trainer.global_step:
            self.seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def written_out(
    precision: str, accumulate: int, clip: bool, implementation: str
) -> tuple[Tuned, list[dict[str, float]]]:
    """GGP section 2.1 and UMD Eq. 10 to 13 in plain torch."""
    module = tuned(implementation).train()
    optimizer: AdamW = module.configure_optimizers()
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=precision == "16-mixed")
    vision = list(module.encoder.vision.parameters())
    logged = []
    for step in range(STEPS):
        optimizer.zero_grad()
        sums = {"language": 0.0, "vision": 0.0}
        for number in range(step * accumulate, (step + 1) * accumulate):
            clean = [p.detach().clone() for p in vision]
            if step:
                moments = [optimizer.state[p]["exp_avg"] for p in vision]
                size = torch.cat([p.flatten() for p in clean]).norm() / torch.cat([m.flatten() for m in moments]).norm()
                for p, theta, m in zip(vision, clean, moments, strict=True):
                    bound = EPSILON * theta.abs()
                    p.data.copy_(theta + torch.clamp(DELTA * size * m, -bound, bound))
            batch = vqa_batch(seed=number)
            with nullcontext() if kind is None else torch.autocast("cpu", kind, cache_enabled=False):
                labels = module.labels(batch)
                pooled = module.pool(batch)
                for modality, values in module.head.contributions(pooled, labels).items():
                    sums[modality] += float(values.sum())
                loss = answer_loss(module.head(pooled), labels) / accumulate
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            for p, theta in zip(vision, clean, strict=True):
                p.data.copy_(theta)
        if implementation != "fused":
            scaler.unscale_(optimizer)
        rho = {"vision": sums["vision"] / sums["language"], "language": sums["language"] / sums["vision"]}
        ahead = max(rho, key=lambda modality: rho[modality])
        factor = 1 - math.tanh(BETA * rho[ahead])
        for p in module.modality_parameters()[ahead]:
            assert p.grad is not None
            p.grad *= factor
        logged.append({f"k_{ahead}": factor} | {f"rho_{modality}": value for modality, value in rho.items()})
        if clip:
            clip_grad_norm_(module.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
    return module, logged


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """But for the keys' biases: a softmax does not see them, and Adam makes steps of their gradients' rounding."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if not name.endswith(("key.bias", "k_proj.bias")):
            assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("precision", "implementation"),
    [
        ("32-true", "fused"),
        ("32-true", "foreach"),
        ("32-true", "plain"),
        ("bf16-mixed", "fused"),
        ("bf16-mixed", "foreach"),
        ("16-mixed", "fused"),
        ("16-mixed", "foreach"),
    ],
)
def test_a_training_is_the_loop_written_out(
    precision: str, implementation: str, accumulate: int, clip: bool, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":
        # The scaler is the real one; Lightning itself only takes it for CUDA.
        settings = {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=SCALE))]}
    module, log = tuned(implementation), Log()
    trainer = quiet_trainer(
        tmp_path,
        log,
        WeightPerturbation(delta=DELTA, epsilon=EPSILON),
        ModalityCoordination(beta=BETA, noise="none"),
        FiniteGuard(),
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=CLIP if clip else None,
        **settings,
    )
    data = Batches([vqa_batch(seed=number) for number in range(STEPS * accumulate)])
    if clip and precision != "32-true" and implementation == "fused":
        with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
            trainer.fit(module, datamodule=data)
        return
    trainer.fit(module, datamodule=data)
    wanted, logged = written_out(precision, accumulate, clip, implementation)
    assert len(log.seen) == STEPS
    for seen, expected in zip(log.seen, logged, strict=True):
        for name, value in expected.items():
            assert seen[f"coordination/{name}"] == pytest.approx(value, rel=1e-5)
    assert "perturbation/norm_ratio" in log.seen[1]
    assert_equal(dict(module.named_parameters()), dict(wanted.named_parameters()))


@pytest.mark.parametrize("name", [name for name in STAGES if name != "VQAClassifier"])  # which is written out above
def test_every_stage_in_bfloat16_is_close_to_float32(name: str, phantoms: Phantoms, tmp_path: Path) -> None:  # noqa: F811
    def trained(precision: Any) -> Gradients:  # noqa: ANN401
        torch.manual_seed(0)
        make, data = STAGES[name]
        module, log = make(), Gradients()
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        papers: list[Callback] = [WeightPerturbation()]
        papers += [ModalityCoordination(noise="none")] if name in LABELLED else []
        trainer = quiet_trainer(tmp_path, log, *papers, FiniteGuard(), max_steps=2, precision=precision)
        trainer.fit(module, phantoms[data]())
        assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in module.parameters())
        return log

    wide, narrow = trained("32-true"), trained("bf16-mixed")
    assert narrow.losses != wide.losses and narrow.losses == pytest.approx(wide.losses, rel=0.02)
    for seen, wanted in zip(narrow.seen, wide.seen, strict=True):
        assert seen.keys() == wanted.keys()
        one, other = (torch.cat([gradients[key].flatten() for key in sorted(wanted)]) for gradients in (seen, wanted))
        assert float(torch.cosine_similarity(one, other, dim=0)) > 0.97


def test_clipping_in_mixed_precision_needs_no_other_optimizer(tmp_path: Path) -> None:
    module = VQAClassifier(ENCODER, CONSTANT, answers=list(ANSWERS))
    trainer = quiet_trainer(tmp_path, max_steps=1, precision="bf16-mixed", gradient_clip_val=1.0)
    trainer.fit(module, datamodule=Batches([vqa_batch()]))
    assert trainer.global_step == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_module_trains_alike(backend: str, tmp_path: Path) -> None:
    def trained(compiled: bool) -> tuple[Gradients, list[dict[str, float]]]:
        module, log, gradients = tuned("fused"), Log(), Gradients()
        given = torch.compile(module, backend=backend) if compiled else module
        quiet_trainer(
            tmp_path, log, WeightPerturbation(), ModalityCoordination(), FiniteGuard("skip"), gradients, max_epochs=1,
            accumulate_grad_batches=2,
        ).fit(cast(LightningModule, given), datamodule=Batches([vqa_batch(seed=n) for n in range(4)]))  # fmt: skip
        return gradients, log.seen

    plain, seen = trained(False)
    compiled, seen_compiled = trained(True)
    torch._dynamo.reset()
    assert_same_gradients(compiled.seen, plain.seen)
    for step, wanted in zip(seen_compiled, seen, strict=True):
        assert step == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("task", ["fit", "test"])
def test_weights_in_another_precision_are_refused(precision: Any, task: str, tmp_path: Path) -> None:  # noqa: ANN401
    trainer = quiet_trainer(tmp_path, precision=precision, max_steps=1)
    with pytest.raises(MisconfigurationException, match=f"'{precision}'; allowed: 32-true, 16-mixed, bf16-mixed"):
        getattr(trainer, task)(tuned("fused"), datamodule=Batches([vqa_batch()]))


def test_sharding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy} == set(base.SHARDING)
    monkeypatch.setattr(base, "SHARDING", (SingleDeviceStrategy,))  # the others want GPUs
    with pytest.raises(MisconfigurationException, match=r"shards the model.*--trainer.strategy ddp"):
        quiet_trainer(tmp_path, max_steps=1).fit(tuned("fused"), datamodule=Batches([vqa_batch()]))
