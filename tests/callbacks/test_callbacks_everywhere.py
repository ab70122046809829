"""Both papers' callbacks on every stage that is trained with them: real trainers, phantom data, tiny encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from callbacks import ModalityCoordination, WeightPerturbation
from datamodules import PhantomCaptions, PhantomClassification, PhantomRetrieval, PhantomVQA
from tests.synthetic import OPTIMIZER, quiet_trainer
from umd import modules
from umd.encoders import EncoderConfig
from umd.encoders.ggp import GGPConfig
from umd.modules import (
    Classification,
    ContrastivePretrain,
    MRPretrain,
    Retrieval,
    TDCalib,
    VQAClassifier,
    VQAGenerator,
)
from umd.modules.base import Stage
from umd.modules.contrastive_pretrain import ContrastiveConfig
from umd.modules.contributions import Contributions
from umd.modules.objectives import PRESETS, ReconstructionConfig
from umd.modules.vqa_generation import AnswerDecoderConfig

EPSILON = 1e-3
BETA = 0.1
SIZE = 40

UMD = EncoderConfig(
    image_size=32,
    vision="tiny_vit",
    vision_options={"width": 16, "depth": 1, "heads": 2, "patch_size": 8},
    text="tiny_bert",
    text_options={"width": 16, "layers": 1, "heads": 2},
    fusion_width=24,
    fusion_layers=1,
    fusion_heads=2,
)
GGP = GGPConfig(
    image_size=32,
    vision="tiny_vit",
    vision_options={"width": 16, "depth": 1, "heads": 2, "patch_size": 8},
    text="tiny_bert",
    text_options={"width": 24, "heads": 2},
    text_layers=1,
    fusion_layers=1,
)
REBUILDING = ReconstructionConfig(decoder_width=16, decoder_layers=1, decoder_heads=2)
PAIRS = ContrastiveConfig(projection_width=8, queue_size=8)

Make = Callable[[], LightningModule]
UNLABELLED: dict[str, tuple[Make, str]] = {
    **{
        f"MRPretrain {preset}": (
            partial(MRPretrain, UMD, OPTIMIZER, replace(REBUILDING, preset=preset)),
            "captions",
        )
        for preset in PRESETS
    },
    "MRPretrain clip in chunks": (
        partial(MRPretrain, UMD, OPTIMIZER, replace(REBUILDING, preset="clip", contrastive_chunk=3)),
        "captions",
    ),
    "TDCalib": (partial(TDCalib, UMD, OPTIMIZER, REBUILDING), "vqa"),
    "ContrastivePretrain": (partial(ContrastivePretrain, GGP, OPTIMIZER, PAIRS), "captions"),
}
LABELLED: dict[str, tuple[Make, str]] = {
    "VQAClassifier": (partial(VQAClassifier, UMD, OPTIMIZER), "vqa"),
    "Classification": (partial(Classification, UMD, OPTIMIZER), "classification"),
    "Retrieval": (partial(Retrieval, UMD, OPTIMIZER), "retrieval"),
    "VQAGenerator": (partial(VQAGenerator, GGP, OPTIMIZER, AnswerDecoderConfig(layers=1)), "vqa"),
}
STAGES = {**UNLABELLED, **LABELLED}
# What UMD's section 3.3.2 slows, by how the parameters' names begin.
MODALITIES = {
    "vision": ("encoder.vision.", "encoder.fusion.image_projection.", "encoder.fusion.image_layers."),
    "language": ("encoder.text.", "encoder.fusion.text_projection.", "encoder.fusion.text_layers."),
}
# GGP's fusion is one stack for both.
MODALITIES_OF_GGP = {"vision": ("encoder.vision.", "encoder.image_projection."), "language": ("encoder.text.",)}


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[], LightningDataModule]]:
    """How to open each kind of data; the files are written by whoever comes first, and shared."""
    root = tmp_path_factory.mktemp("phantoms")
    settings: dict[str, Any] = {"size": SIZE, "image_size": 32, "batch_size": 4}
    return {
        "captions": partial(PhantomCaptions, str(root / "captions"), **settings),
        "vqa": partial(PhantomVQA, str(root / "vqa"), **settings),
        "classification": partial(PhantomClassification, str(root / "classification"), **settings),
        "retrieval": partial(PhantomRetrieval, str(root / "captions"), negatives=3, **settings),
    }


Phantoms = dict[str, Callable[[], LightningDataModule]]


def weights(module: LightningModule) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def gradients(module: LightningModule) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


class Watch(Callback):
    """Keeps the weights around each step, those that the vision encoder computes with, and what was logged.

    Goes before the callback that is watched.
    """

    def __init__(self) -> None:
        self.before: list[dict[str, Tensor]] = []
        self.inside: list[dict[str, Tensor]] = []
        self.updated: list[dict[str, Tensor]] = []
        self.logged: list[dict[str, Tensor]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Stage)

        def look(*_: object) -> None:
            if len(self.inside) < len(self.before):
                self.inside.append(weights(pl_module))

        pl_module.encoder.vision.register_forward_pre_hook(look)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.before.append(weights(pl_module))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.updated.append(weights(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.logged.append(dict(trainer.callback_metrics))


class WatchGradients(Callback):
    """Keeps each micro-batch's contributions, the gradients before and at the optimizer, and what was logged.

    Goes before the callback that is watched.
    """

    def __init__(self) -> None:
        self.left: list[dict[str, Tensor]] = []
        self.seen: list[dict[str, Tensor]] = []
        self.added: list[dict[str, float]] = []
        self.logged: list[dict[str, float]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Contributions)
        add = pl_module.add_contributions

        def look(contributions: Mapping[str, Tensor]) -> None:
            self.added.append({name: float(values.sum()) for name, values in contributions.items()})
            add(contributions)

        pl_module.add_contributions = look  # type: ignore[method-assign]
        (optimizer,) = trainer.optimizers
        # Behind the step: backward runs inside of it, so that before it there are the last step's gradients.
        optimizer.register_step_post_hook(lambda *_: self.seen.append(gradients(pl_module)))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.left.append(gradients(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if len(self.logged) < trainer.global_step:
            self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_every_stage_is_here() -> None:
    assert {name.split()[0] for name in STAGES} == set(modules.__all__)


@pytest.mark.parametrize("name", STAGES)
def test_perturbation_moves_the_vision_encoder_within_a_step_alone(
    name: str, phantoms: Phantoms, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    make, data = STAGES[name]
    watch = Watch()
    trainer = quiet_trainer(tmp_path, watch, WeightPerturbation(epsilon=EPSILON), max_steps=3)
    trainer.fit(make(), phantoms[data]())

    assert len(watch.before) == len(watch.inside) == len(watch.updated) == 3
    for before, updated in zip(watch.before, watch.updated, strict=True):
        assert all(torch.equal(before[key], updated[key]) for key in before), "the update is for the weights themselves"
    assert "perturbation/norm_ratio" not in watch.logged[0], "no moment yet"
    assert all(torch.equal(watch.before[0][key], watch.inside[0][key]) for key in watch.before[0])
    for step in (1, 2):
        before, inside = watch.before[step], watch.inside[step]
        moved = {key for key in before if not torch.equal(before[key], inside[key])}
        assert moved and all(key.startswith("encoder.vision.") for key in moved)
        matrices = {key for key in before if key.startswith("encoder.vision.") and before[key].ndim >= 2}
        assert matrices <= moved, "every matrix of the encoder has a gradient and moves"
        vision = [key for key in before if key.startswith("encoder.vision.")]
        theta = torch.cat([before[key].flatten() for key in vision]).double()
        shift = torch.cat([inside[key].flatten() for key in vision]).double() - theta
        # A shifted float32 weight is rounded, by less than 1e-7 of itself.
        assert bool((shift.abs() <= (EPSILON + 1e-7) * theta.abs()).all())
        ratio = float(watch.logged[step]["perturbation/norm_ratio"])
        assert 0 < ratio <= EPSILON
        assert ratio == pytest.approx(float(shift.norm() / theta.norm()), rel=1e-3)


@pytest.mark.parametrize("name", LABELLED)
def test_coordination_slows_the_modality_ahead_as_in_equation_13(name: str, phantoms: Phantoms, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, data = LABELLED[name]
    watch = WatchGradients()
    coordination = ModalityCoordination(beta=BETA, noise="none")
    module = make()
    # Two micro-batches a step: the factor is for their sum, and is applied once.
    quiet_trainer(tmp_path, watch, coordination, max_steps=2, accumulate_grad_batches=2).fit(module, phantoms[data]())

    assert len(watch.left) == len(watch.seen) == len(watch.logged) == 2 and len(watch.added) == 4
    parts = MODALITIES_OF_GGP if name == "VQAGenerator" else MODALITIES
    for step, (left, seen, logged) in enumerate(zip(watch.left, watch.seen, watch.logged, strict=True)):
        both = watch.added[2 * step : 2 * step + 2]
        summed = {modality: sum(one[modality] for one in both) for modality in parts}
        rho = {"vision": summed["vision"] / summed["language"], "language": summed["language"] / summed["vision"]}
        ahead = max(rho, key=lambda modality: rho[modality])
        k = {modality: 1 - math.tanh(BETA * rho[modality]) if modality == ahead else 1.0 for modality in rho}
        for modality in rho:
            assert logged[f"coordination/contribution_{modality}"] == pytest.approx(summed[modality], rel=1e-5)
            assert logged[f"coordination/rho_{modality}"] == pytest.approx(rho[modality], rel=1e-5)
            assert logged[f"coordination/k_{modality}"] == pytest.approx(k[modality], rel=1e-5)
        assert k[ahead] < 1
        assert left.keys() == seen.keys()
        slowed = {key for key in left if key.startswith(parts[ahead])}
        assert slowed and any(left[key].abs().max() > 0 for key in slowed)
        for key in left:
            if key in slowed:
                torch.testing.assert_close(seen[key], k[ahead] * left[key], rtol=1e-5, atol=0)
            else:
                assert torch.equal(seen[key], left[key]), f"{key} is not the slowed modality's"


@pytest.mark.parametrize("name", UNLABELLED)
def test_coordination_is_refused_where_there_is_nothing_to_answer(
    name: str, phantoms: Phantoms, tmp_path: Path
) -> None:
    make, data = UNLABELLED[name]
    stage = name.split()[0]
    with pytest.raises(MisconfigurationException, match=f"labelled data, and {stage} is none. Leave it out"):
        quiet_trainer(tmp_path, ModalityCoordination(), max_steps=1).fit(make(), phantoms[data]())
