"""A classifier's temperature: fitted on validation, kept with the weights, of no influence on what is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import umd
from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, Batches, quiet_trainer, vqa_batch
from tests.umd.modules.test_classification import CLASSES, Labelled, batch
from umd.cli import main
from umd.modules import Classification, VQAClassifier

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]


def classifier(shift: float = 0.0) -> VQAClassifier:
    """An untrained one; negative logits are those of answers that are seldom right."""
    torch.manual_seed(0)
    module = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS)).eval()
    with torch.no_grad():
        list(module.head.parameters())[-1].add_(shift)
    return module


class OnTest(Batches):
    validates_on_test = True


def validated(module: Any, data: Any, folder: Path) -> float:  # noqa: ANN401
    quiet_trainer(folder, limit_val_batches=1.0).validate(module, datamodule=data, verbose=False)
    return float(module.temperature)


def test_it_is_the_one_that_makes_validation_likeliest(tmp_path: Path) -> None:
    module, questions = classifier(-3), vqa_batch(40)
    found = validated(module, Batches([questions]), tmp_path)
    with torch.no_grad():
        best, chosen = module(questions).max(1)
    right = np.array([ANSWERS[number] == true for number, true in zip(chosen.tolist(), questions.answers, strict=True)])
    assert 0 < right.sum() < len(right)
    losses = {}
    for temperature in np.geomspace(0.1, 10, 1000):
        sure = 1 / (1 + np.exp(-best.double().numpy() / temperature))
        losses[temperature] = -np.log(np.where(right, sure, 1 - sure)).mean()
    assert found == pytest.approx(min(losses, key=losses.__getitem__), rel=1e-2) and found != 1
    assert validated(module, Batches([questions, questions]), tmp_path) == pytest.approx(found, rel=1e-5)
    assert validated(classifier(-3), OnTest([questions]), tmp_path) == 1


@pytest.mark.parametrize("kind", [VQAClassifier, Classification])
def test_it_changes_confidences_alone(kind: type, tmp_path: Path) -> None:
    module: Any = classifier()
    data: Any = Batches([vqa_batch(6)])
    if kind is Classification:
        module, data = Classification(ENCODER, OPTIMIZER, classes=list(CLASSES)).eval(), Labelled(batch(6))
    word = "answer" if kind is VQAClassifier else "label"
    found: dict[float, Any] = {}
    for temperature in (1.0, 2.5):
        module.temperature = temperature
        trainer = quiet_trainer(tmp_path)
        metrics = trainer.test(module, datamodule=data, verbose=False)
        rows: Any = trainer.predict(module, datamodule=data)
        found[temperature] = metrics, rows[0]
    (plain_metrics, plain), (metrics, tempered) = found.values()
    assert metrics == plain_metrics
    assert [row[word] for row in tempered] == [row[word] for row in plain]
    assert [row["untempered_confidence"] for row in tempered] == [row["confidence"] for row in plain]
    assert all("untempered_confidence" not in row for row in plain)
    assert [row["confidence"] for row in tempered] != [row["confidence"] for row in plain]
    assert all(row["probability_1"] == row["confidence"] for row in tempered)


def test_it_goes_with_the_weights_that_it_was_fitted_for(tmp_path: Path) -> None:
    module = classifier(-3)
    trainer = quiet_trainer(tmp_path, limit_val_batches=1.0)
    trainer.validate(module, datamodule=Batches([vqa_batch(40)]), verbose=False)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    other = classifier()
    other.on_load_checkpoint(checkpoint)
    assert other.temperature == module.temperature != 1 and type(checkpoint["temperature"]) is float
    del checkpoint["temperature"]
    other.on_load_checkpoint(checkpoint)
    assert other.temperature == 1
    quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(module, datamodule=Batches([vqa_batch(4)]))
    assert module.temperature == 1


def test_whoever_asks_a_checkpoint_gets_it(classifier_run: Path, tmp_path: Path) -> None:
    best = classifier_run / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    images = {}
    for temperature in (1.0, 2.5):
        (tmp_path / str(temperature)).mkdir()
        images[temperature] = tmp_path / str(temperature) / "model.ckpt"
        torch.save(content | {"temperature": temperature}, images[temperature])
    main(["export", f"--ckpt_path={images[2.5]}", f"--out={tmp_path / 'exported'}"])
    plain, tempered, exported = map(umd.load, (images[1.0], images[2.5], tmp_path / "exported"))
    replies = [model.answer(model.blank, "Is it large?") for model in (plain, tempered, exported)]
    assert [one.text for one in replies[0].answers] == [one.text for one in replies[1].answers]
    for before, after, again in zip(*(reply.answers for reply in replies), strict=True):
        assert after.score == before.score and again.probability == after.probability
        assert after.probability == pytest.approx(1 / (1 + np.exp(-before.score / 2.5)), rel=1e-5)
    assert "temperature 2.50" in (tmp_path / "exported" / "README.md").read_text()
