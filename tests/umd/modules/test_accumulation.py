"""An optimizer step is the mean over its micro-batches, however many it holds, in every stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, RECONSTRUCTION, quiet_trainer, vqa_batch
from tests.umd.modules import test_classification, test_contrastive_pretrain, test_retrieval, test_vqa_generation
from umd.modules import (
    Classification,
    ContrastivePretrain,
    MRPretrain,
    Retrieval,
    TDCalib,
    VQAClassifier,
    VQAGenerator,
)
from umd.modules.objectives import Preset

STILL = replace(OPTIMIZER, lr=1e-30, weight_decay=0.0)
"""So small that no weight moves: each step's gradient is taken at the same ones."""


def questions() -> LightningDataModule:
    return test_vqa_generation.Reading([vqa_batch(4, seed=seed) for seed in range(5)])


def pretraining(preset: Preset) -> Callable[[], LightningModule]:
    return lambda: MRPretrain(ENCODER, STILL, replace(RECONSTRUCTION, preset=preset))


STAGES: dict[str, tuple[Callable[[], LightningModule], Callable[[], LightningDataModule]]] = {
    "umd": (pretraining("umd"), questions),
    "clip": (pretraining("clip"), questions),
    "calibrate": (lambda: TDCalib(ENCODER, STILL, RECONSTRUCTION), questions),
    "vqa": (lambda: VQAClassifier(ENCODER, STILL, answers=list(ANSWERS)), questions),
    "classification": (
        lambda: Classification(ENCODER, STILL, classes=list(test_classification.CLASSES)),
        lambda: test_classification.Labelled(*(test_classification.batch(4, seed=seed) for seed in range(5))),
    ),
    "retrieval": (
        lambda: Retrieval(ENCODER, STILL),
        lambda: test_retrieval.Pairs([test_retrieval.pairs(3, negatives=2, seed=seed) for seed in range(5)]),
    ),
    "contrastive_pretrain": (
        lambda: ContrastivePretrain(
            test_contrastive_pretrain.ENCODER, STILL, replace(test_contrastive_pretrain.CONTRASTIVE, queue_size=0)
        ),
        questions,
    ),
    "vqa_generation": (
        lambda: VQAGenerator(test_vqa_generation.ENCODER, STILL, test_vqa_generation.DECODER),
        questions,
    ),
}


class Gradients(Callback):
    """The gradients of each optimizer step; dropout is off, so that they depend on the batches alone."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        for part in pl_module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        found = ((name, parameter.grad) for name, parameter in pl_module.named_parameters())
        self.steps.append({name: gradient.clone() for name, gradient in found if gradient is not None})


def gradients(stage: str, accumulate: int, folder: Path) -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    build, data = STAGES[stage]
    seen = Gradients()
    trainer = quiet_trainer(folder, seen, max_epochs=1, accumulate_grad_batches=accumulate)
    trainer.fit(build(), datamodule=data())
    return seen.steps


@pytest.mark.parametrize("stage", STAGES)
def test_the_last_shorter_step_of_an_epoch_is_the_mean_over_what_it_holds(stage: str, tmp_path: Path) -> None:
    """Five micro-batches: a step of three and one of two, against the five gradients one by one."""
    single, stepped = gradients(stage, 1, tmp_path), gradients(stage, 3, tmp_path)
    assert (len(single), len(stepped)) == (5, 2)
    for step, held in zip(stepped, (single[:3], single[3:]), strict=True):
        assert step.keys() == held[0].keys()
        for name, gradient in step.items():
            mean = torch.stack([one[name] for one in held]).mean(0)
            assert torch.allclose(gradient, mean, rtol=1e-4, atol=1e-6), name
