"""What is not finite stops a training with a useful message, or leaves no trace but a count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import AdamW

from callbacks import FiniteGuard, ModalityCoordination, WeightPerturbation
from callbacks.finite_guard import NumericalFaultError, all_finite
from tests.callbacks.test_callbacks_everywhere import GGP, PAIRS, STAGES, phantoms  # noqa: F401 - a fixture
from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, RECONSTRUCTION, VOCABULARY, Batches, quiet_trainer, vqa_batch
from umd.batch import ImageTextBatch, VQABatch
from umd.cli import main
from umd.modules import ContrastivePretrain, MRPretrain, VQAClassifier
from umd.modules.base import Stage

CONSTANT = replace(OPTIMIZER, schedule="constant_with_warmup")


def poisoned(batch: VQABatch, row: int = 1) -> VQABatch:
    image = batch.image.float() / 255
    image[row] = float("nan")
    return replace(batch, image=image)


def named(number: int) -> VQABatch:
    """A batch whose samples no other batch has."""
    return replace(vqa_batch(seed=number), sample_ids=tuple(f"b{number}s{row}" for row in range(4)))


def classifier() -> VQAClassifier:
    torch.manual_seed(0)
    return VQAClassifier(ENCODER, CONSTANT, answers=list(ANSWERS))


def fault(module: LightningModule, data: LightningDataModule, folder: Path, *callbacks: Any, **settings: Any) -> str:  # noqa: ANN401
    """The message with which a training stops."""
    with pytest.raises(NumericalFaultError) as stop:
        quiet_trainer(folder, *callbacks, **settings).fit(module, datamodule=data)
    return str(stop.value)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_stops_at_the_step_and_names_terms_and_samples(
    name: str,
    phantoms: dict[str, Callable[[], LightningDataModule]],  # noqa: F811
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    make, data = STAGES[name]
    module = make()
    step = module.training_step
    samples: list[str] = []
    before: dict[str, Tensor] = {}

    def look(batch: ImageTextBatch, batch_idx: int) -> Any:  # noqa: ANN401
        if batch_idx < 2:
            return step(batch, batch_idx)
        samples.extend(batch.sample_ids)
        before.update({key: value.clone() for key, value in module.state_dict().items()})
        return step(poisoned(batch), batch_idx)  # type: ignore[arg-type]

    module.training_step = look  # type: ignore[method-assign]
    message = fault(module, phantoms[data](), tmp_path, FiniteGuard())
    assert message.startswith("step 2: the loss")
    assert f"samples: {', '.join(samples)}." in message
    if name == "ContrastivePretrain":
        assert "the loss terms itc, itm, mlm are nan" in message
    elif name in ("MRPretrain umd", "TDCalib"):
        assert all(term in message for term in ("mim", "feature_mim", "feature_mlm"))
    elif name.startswith("MRPretrain"):
        assert isinstance(module, MRPretrain)
        (named_terms,) = [part.split(" is ")[0].split(" are ")[0] for part in [message.split("loss term")[1]]]
        assert set(named_terms.removeprefix("s").replace(",", "").split()) <= module.loss_weights.keys()
    else:
        assert "the loss is nan" in message
    trained = {key: p for key, p in module.named_parameters()}
    assert all(torch.equal(p, before[key]) for key, p in trained.items()), "the weights are those before the step"


def poison_gradient(parameter: Any, calls: list[int], value: float = math.nan) -> None:  # noqa: ANN401
    """Replace this parameter's gradient in some of the backward passes."""
    count: Iterator[int] = iter(range(1_000_000))
    parameter.register_hook(lambda grad: grad * value if next(count) in calls else grad)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_gradient_is_found_in_any_micro_batch_and_named(value: float, tmp_path: Path) -> None:
    module = classifier()
    poison_gradient(module.head.last.weight, [4], value)
    message = fault(module, Batches([named(n) for n in range(6)]), tmp_path, FiniteGuard(), accumulate_grad_batches=3)
    assert message.startswith("step 1: the loss is finite, but not the gradient of head.last.weight; ")
    assert f"samples: {', '.join(f'b{n}s{row}' for n in (3, 4, 5) for row in range(4))}." in message


@pytest.mark.parametrize("weights_only", [False, True])
def test_the_message_knows_the_last_checkpoint_and_that_is_finite(weights_only: bool, tmp_path: Path) -> None:
    saver = ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_weights_only=weights_only
    )
    data = Batches([named(0), named(1), poisoned(named(2)), named(3)])
    message = fault(classifier(), data, tmp_path, saver, FiniteGuard(), max_epochs=1, enable_checkpointing=True)
    last = tmp_path / "step=2.ckpt"
    assert message.startswith("step 2: the loss is nan; samples: b2s0, b2s1, b2s2, b2s3. ")
    assert f"last saved, finite, at step 2: {last}" in message and "on_fault: skip" in message
    assert sorted(tmp_path.iterdir()) == [tmp_path / "step=1.ckpt", last]
    state = torch.load(last, weights_only=True)["state_dict"]
    assert all(bool(value.isfinite().all()) for value in state.values())


class Overflow(Callback):
    """What an update that overflows leaves: behind the loss, before the checkpoint."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == 3:
            assert isinstance(pl_module, VQAClassifier)
            pl_module.head.last.weight.data[0].fill_(math.inf)


@pytest.mark.parametrize("weights_only", [False, True])
def test_no_checkpoint_ever_holds_weights_that_are_not_finite(weights_only: bool, tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, filename="only", every_n_train_steps=1, save_weights_only=weights_only)
    trainer = quiet_trainer(tmp_path, Overflow(), saver, FiniteGuard(), max_epochs=1, enable_checkpointing=True)
    with pytest.raises(ValueError, match=r"no checkpoint is written, since 1 of \d+ weights .*: head.last.weight"):
        trainer.fit(classifier(), datamodule=Batches([named(n) for n in range(4)]))
    saved = torch.load(tmp_path / "only.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(bool(value.isfinite().all()) for value in saved["state_dict"].values())


class AllTheSame(ContrastivePretrain):
    """Its masks and negatives depend on nothing, so that steps can be left out."""

    def generator(self, seed: int, *place: int) -> torch.Generator:
        return torch.Generator().manual_seed(0)


class SameMasks(MRPretrain):
    """Likewise."""

    def generator(self, seed: int, *place: int) -> torch.Generator:
        return torch.Generator().manual_seed(0)


SKIPPING: dict[str, Callable[[], Stage[Any]]] = {
    "VQAClassifier": classifier,
    "MRPretrain": lambda: SameMasks(ENCODER, CONSTANT, RECONSTRUCTION),
    "ContrastivePretrain": lambda: AllTheSame(
        replace(GGP, text_options={**GGP.text_options, "vocab_size": VOCABULARY}), CONSTANT, PAIRS
    ),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", SKIPPING)
def test_a_skipped_step_leaves_no_trace_but_its_count(name: str, accumulate: int, tmp_path: Path) -> None:
    bad = 2 * accumulate + accumulate - 1  # the last micro-batch of the third step
    batches = [named(n) for n in range(5 * accumulate)]
    without = batches[: 2 * accumulate] + batches[3 * accumulate :]
    batches[bad] = poisoned(batches[bad])

    def trained(given: list[VQABatch], guard: FiniteGuard) -> tuple[dict[str, Tensor], dict[str, Any], float]:
        torch.manual_seed(0)
        module = SKIPPING[name]()
        others: list[Any] = [WeightPerturbation()]
        if name == "VQAClassifier":
            others.append(ModalityCoordination(noise="none"))
        trainer = quiet_trainer(
            tmp_path, *others, guard, max_epochs=1, accumulate_grad_batches=accumulate, gradient_clip_val=1.0
        )
        trainer.fit(module, datamodule=Batches(given))
        logged = float(trainer.callback_metrics["faults/skipped_steps"])
        return module.state_dict(), trainer.optimizers[0].state_dict()["state"], logged

    guard, unused = FiniteGuard("skip"), FiniteGuard("skip")
    with pytest.warns(RuntimeWarning, match=rf"step 2: the loss.*samples: b{bad}s0, .*skipped, the 1\. so far"):
        weights, optimizer, logged = trained(batches, guard)
    wanted, wanted_optimizer, never = trained(without, unused)
    assert (guard.skipped, logged, unused.skipped, never) == (1, 1, 0, 0)
    assert all(torch.equal(weights[key], wanted[key]) for key in wanted)
    for number, state in wanted_optimizer.items():
        assert all(torch.equal(optimizer[number][key], state[key]) for key in state)


def test_skipping_ends_where_it_does_not_help_and_counts_on_after_a_checkpoint(tmp_path: Path) -> None:
    guard = FiniteGuard("skip", in_a_row=3)
    data = Batches([named(0)] + [poisoned(named(n)) for n in range(1, 4)] + [named(4)] + [poisoned(named(5))] * 9)
    with pytest.warns(RuntimeWarning, match="the 6. so far"):
        message = fault(classifier(), data, tmp_path, guard, max_epochs=1)
    assert message.startswith("step 8:") and message.endswith("The 3 steps before this one were skipped already.")
    another = FiniteGuard("skip")
    another.load_state_dict(guard.state_dict())
    assert another.skipped == 6


def test_weights_that_are_not_finite_are_no_start(tmp_path: Path) -> None:
    module = classifier()
    with torch.no_grad():
        module.encoder.text.model.embeddings.word_embeddings.weight[3, 1] = math.nan  # type: ignore
    message = fault(module, Batches([named(0)]), tmp_path, FiniteGuard())
    assert message.endswith("not finite: encoder.text.model.embeddings.word_embeddings.weight")


def test_a_training_that_diverges_ends_in_one_line_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[2] / "configs" / "calibrate.yaml"
    given = [f"--config={config}", f"--runs={tmp_path / 'runs'}", f"--data.root={tmp_path / 'data'}", "--data.size=40"]
    tiny = ["--model.encoder.image_size=32", "--data.batch_size=4", "--trainer.limit_val_batches=1"]
    fast = ["--model.optimizer.lr=1e38", "--model.optimizer.warmup_ratio=0", "--trainer.max_epochs=2"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *given, *tiny, *fast, *quiet])
    assert stop.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("umd: ")]
    assert len(said) == 1 and said[0].startswith("umd: step 1: the loss terms ") and "samples: " in said[0]
    assert list(tmp_path.rglob("*.ckpt")) == []


# float16: a real gradient scaler, which the CPU has too


def half(initial_scale: float) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=initial_scale))


class Unfused(VQAClassifier):
    """With the optimizer that it has on a GPU, whose gradients Lightning unscales."""

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        return AdamW(self.parameters(), lr=1e-3, foreach=True)


@pytest.mark.parametrize("kind", [VQAClassifier, Unfused])
def test_overflow_in_float16_is_left_to_the_scaler(kind: type[VQAClassifier], tmp_path: Path) -> None:
    precision, guard = half(2.0**40), FiniteGuard()
    trainer = quiet_trainer(tmp_path, guard, max_epochs=1, plugins=[precision])
    trainer.fit(kind(ENCODER, CONSTANT, answers=list(ANSWERS)), datamodule=Batches([named(n % 4) for n in range(40)]))
    assert precision.scaler is not None
    assert 1 < precision.scaler.get_scale() < 2.0**40, "there was overflow, and the scaler dealt with it"


@pytest.mark.parametrize("kind", [VQAClassifier, Unfused])
def test_in_float16_what_no_scale_cures_is_a_fault(kind: type[VQAClassifier], tmp_path: Path) -> None:
    module = kind(ENCODER, CONSTANT, answers=list(ANSWERS))
    poison_gradient(module.head.last.weight, list(range(2, 100)))
    precision = half(4.0)
    message = fault(module, Batches([named(n % 4) for n in range(40)]), tmp_path, FiniteGuard(), plugins=[precision])
    # 4, 2 and 1 may be too much; a half is not.
    assert message.startswith("step 5: the loss is finite, but not the gradient of head.last.weight")


@pytest.mark.parametrize("kind", [VQAClassifier, Unfused])
def test_in_float16_a_loss_that_is_not_finite_is_skipped_at_once(kind: type[VQAClassifier], tmp_path: Path) -> None:
    module = kind(ENCODER, CONSTANT, answers=list(ANSWERS))
    step, kept = module.training_step, []

    def infinite(batch: VQABatch, batch_idx: int) -> Tensor:
        loss = step(batch, batch_idx)
        kept.append(module.head.last.weight.detach().clone())
        return loss + math.inf if batch_idx == 2 else loss  # whose gradient is finite

    module.training_step = infinite  # type: ignore[method-assign]
    guard, precision = FiniteGuard("skip"), half(8.0)
    with pytest.warns(RuntimeWarning, match="step 2: the loss is infinite"):
        quiet_trainer(tmp_path, guard, max_epochs=1, plugins=[precision]).fit(
            module, datamodule=Batches([named(n) for n in range(5)])
        )
    assert guard.skipped == 1
    assert [torch.equal(a, b) for a, b in pairwise(kept)] == [False, False, True, False]


def test_all_finite_of_mixed_tensors() -> None:
    tensors = [torch.ones(3), torch.full((2, 2), 6e4, dtype=torch.float16), torch.ones(2, dtype=torch.float64) * 1e200]
    tensors.append(torch.zeros(4, 2).to_sparse())
    assert not bool(all_finite(tensors)), "Adam would square 1e200"
    tensors[2] /= 1e150
    assert bool(all_finite(tensors))
    assert bool(all_finite([]))
    for wrong in (math.nan, math.inf, -math.inf):
        for place in range(3):
            changed = [tensor.clone() for tensor in tensors]
            changed[place].view(-1)[-1] = wrong
            assert not bool(all_finite(changed))


@pytest.mark.parametrize(("argument", "value"), [("on_fault", "ignore"), ("in_a_row", 0)])
def test_an_argument_out_of_its_range_is_refused(argument: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=argument):
        FiniteGuard(**{argument: value})
