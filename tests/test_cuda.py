"""Every stage trains on a real GPU, with the callbacks that it takes, under each precision; skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import FiniteGuard, ModalityCoordination, WeightPerturbation
from tests.callbacks.test_callbacks_everywhere import LABELLED, STAGES, Phantoms, phantoms  # noqa: F401 - a fixture
from tests.synthetic import quiet_trainer

ACCELERATOR = "gpu"
STEPS = 4

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_trains_and_is_tested(name: str, precision: str, phantoms: Phantoms, tmp_path: Path) -> None:  # noqa: F811
    torch.manual_seed(0)
    make, data = STAGES[name]
    callbacks: list[Callback] = [FiniteGuard(), WeightPerturbation()]
    callbacks += [ModalityCoordination()] if name in LABELLED else []
    module = make()
    trainer = quiet_trainer(
        tmp_path,
        *callbacks,
        accelerator=ACCELERATOR,
        precision=precision,
        max_steps=STEPS,
        accumulate_grad_batches=2,
        limit_val_batches=1,
        val_check_interval=2,
    )
    before = {key: parameter.detach().clone() for key, parameter in module.named_parameters()}
    trainer.fit(module, phantoms[data]())
    assert trainer.global_step == STEPS
    after = {key: parameter.detach().cpu() for key, parameter in module.named_parameters()}
    assert all(bool(parameter.isfinite().all()) for parameter in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before), "a step has moved the weights"
    if name in LABELLED:
        (values,) = trainer.test(module, phantoms[data](), verbose=False)
        assert values
