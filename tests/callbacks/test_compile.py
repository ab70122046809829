"""`torch.compile` changes nothing but the time: every stage, both papers' callbacks, real trainers."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch._dynamo import register_backend
from torch._dynamo.utils import counters

from callbacks import Compile, ModalityCoordination, WeightPerturbation
from tests.callbacks.test_callbacks_everywhere import LABELLED, STAGES, Phantoms, phantoms  # noqa: F401 - a fixture
from tests.gradients import Gradients, assert_same_gradients
from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, Batches, quiet_trainer, vqa_batch
from umd.files import UserError
from umd.modules import VQAClassifier

ONCE_EACH = ["MRPretrain umd", *(name for name in STAGES if not name.startswith("MRPretrain"))]
COMPILER = os.environ.get("CXX", "g++")


@pytest.fixture(autouse=True)
def _nothing_compiled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "torch.__trace")  # thousands of lines
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Programs(Gradients):
    """How many programs there are after each step, and what trainings are compared by."""

    def __init__(self) -> None:
        super().__init__()
        self.programs: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        super().on_train_batch_end(trainer, pl_module)
        self.programs.append(counters["stats"]["unique_graphs"])


def without_dropout(module: LightningModule) -> LightningModule:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return module


def trained(
    name: str,
    phantoms: Phantoms,  # noqa: F811
    folder: Path,
    *compiling: Callback,
    steps: int = 2,
    **settings: Any,  # noqa: ANN401
) -> Programs:
    """Some steps with both callbacks (all that the stage takes)."""
    torch.manual_seed(0)
    make, data = STAGES[name]
    module, log = without_dropout(make()), Programs()
    papers: list[Callback] = [WeightPerturbation()]
    papers += [ModalityCoordination(noise="none")] if name in LABELLED else []
    trainer = quiet_trainer(folder, *papers, *compiling, log, max_steps=steps, limit_val_batches=1, **settings)
    trainer.fit(module, phantoms[data]())
    return log


@pytest.mark.parametrize("name", ONCE_EACH)
def test_a_stage_trains_as_uncompiled(name: str, phantoms: Phantoms, tmp_path: Path) -> None:  # noqa: F811
    plain = trained(name, phantoms, tmp_path)
    assert not counters["stats"]["unique_graphs"]
    compiled = trained(name, phantoms, tmp_path, Compile(backend="eager"))
    assert compiled.programs[0] >= 2, "at least two encoders' programs"
    assert not counters["graph_break"]
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-5)
    assert_same_gradients(compiled.seen, plain.seen)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONCE_EACH)
def test_few_programs_do_for_a_training(name: str, phantoms: Phantoms, tmp_path: Path) -> None:  # noqa: F811
    log = trained(name, phantoms, tmp_path, Compile(backend="eager"), steps=18, limit_train_batches=6)
    # Three to five parts are compiled, for training and for evaluation, and once more where a shape is new.
    assert log.programs[-1] < len(log.programs) == 18, "what compiles at each step is slower than without"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"inductor needs a C++ compiler, and there is no {COMPILER}")
def test_by_inductor_too(phantoms: Phantoms, tmp_path: Path) -> None:  # noqa: F811
    plain = trained("VQAClassifier", phantoms, tmp_path)
    compiled = trained("VQAClassifier", phantoms, tmp_path, Compile())
    assert compiled.programs[0] >= 3
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
    assert_same_gradients(compiled.seen, plain.seen)


def test_a_training_goes_on_compiled_or_not_from_either_checkpoint(tmp_path: Path) -> None:
    def fitted(steps: int, path: Path | None, *compiling: Callback) -> tuple[Gradients, Trainer]:
        torch.manual_seed(0)
        constant = replace(OPTIMIZER, schedule="constant_with_warmup")
        module = VQAClassifier(ENCODER, constant, answers=list(ANSWERS))
        without_dropout(module)
        log = Gradients()
        trainer = quiet_trainer(tmp_path, WeightPerturbation(), *compiling, log, max_steps=steps)
        trainer.fit(module, datamodule=Batches([vqa_batch()]), ckpt_path=str(path) if path else None)
        return log, trainer

    whole, _ = fitted(2, None)
    for number, (first, second) in enumerate([([Compile(backend="eager")], []), ([], [Compile(backend="eager")])]):
        path = tmp_path / f"{number}.ckpt"
        _, trainer = fitted(1, None, *first)
        trainer.save_checkpoint(path)
        resumed, _ = fitted(2, path, *second)
        # Of weights that are perturbed along the first step's moments.
        assert_same_gradients(resumed.seen, whole.seen[1:])


class CompiledParts(Callback):
    """Which parts are compiled while batches come, by command; goes behind."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}

    def look(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:  # noqa: ANN401
        parts = [name for name, part in pl_module.named_modules() if part._compiled_call_impl is not None]
        assert trainer.state.fn is not None
        self.seen[trainer.state.fn.value] = parts

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = look


def test_what_is_compiled_when(phantoms: Phantoms, tmp_path: Path) -> None:  # noqa: F811
    make, data = STAGES["VQAGenerator"]
    module, look = make(), CompiledParts()
    names = ["encoder.vision", "encoder.fusion"]
    trainer = quiet_trainer(
        tmp_path, Compile(names, backend="eager", commands=["fit", "validate"]), look, max_steps=1, limit_val_batches=1
    )
    trainer.fit(module, phantoms[data]())
    trainer.validate(module, phantoms[data](), verbose=False)
    trainer.test(module, phantoms[data](), verbose=False)
    # GGP's fusion is a list of layers.
    assert look.seen == {"fit": ["encoder.vision", "encoder.fusion.0"], "validate": look.seen["fit"], "test": []}
    assert all(part._compiled_call_impl is None for part in module.modules())


def test_a_machine_that_cannot_compile_says_so_in_one_line(tmp_path: Path) -> None:
    @register_backend(name="without_compiler")
    def _without_compiler(*_: object, **__: object) -> None:
        raise FileNotFoundError("No working C++ compiler found\n\nSet a variable for more")

    refusals: list[tuple[dict[str, Any], str]] = [
        (
            {"backend": "without_compiler"},
            "backend 'without_compiler' on cpu: .*No working C.. compiler found. Mend that",
        ),
        ({"backend": "inductr"}, "backend 'inductr' on cpu: Invalid backend: 'inductr'"),
        ({"mode": "fast"}, "backend 'inductor' and mode 'fast' on cpu: .*fast"),
    ]
    for settings, reason in refusals:
        module = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS))
        with pytest.raises(UserError, match=f"torch cannot compile with {reason}") as refused:
            quiet_trainer(tmp_path, Compile(**settings), max_steps=1).fit(module, datamodule=Batches([vqa_batch()]))
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="commands has 'train'; allowed: fit, validate, test, predict"):
        Compile(commands=["train"])  # type: ignore[list-item]


def test_a_submodule_that_is_not_there_is_refused(tmp_path: Path) -> None:
    module = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS))
    with pytest.raises(MisconfigurationException, match=r"Compile's modules names .* Did you mean 'encoder.vision'"):
        quiet_trainer(tmp_path, Compile(["encoder.visoin"], "eager"), max_steps=1).fit(
            module, datamodule=Batches([vqa_batch()])
        )
