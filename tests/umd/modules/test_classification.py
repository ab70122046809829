"""Classification and its metrics against plain counting and torchmetrics."""

from __future__ import annotations

import io
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_recall,
    multiclass_specificity,
)

from callbacks import ModalityCoordination, PredictionWriter, ResultsTable
from tests.synthetic import ENCODER, OPTIMIZER, quiet_trainer, vqa_batch
from umd.batch import ClassificationBatch, ImageTextBatch
from umd.commands.compare import as_tables, read_runs
from umd.losses.classification import classification_loss
from umd.metrics.classification import (
    CLASSIFICATION_REPORT_COLUMNS,
    ClassificationScores,
    classification_report,
    weighted_auc,
    weighted_metrics,
)
from umd.metrics.runs import configurations
from umd.modules import Classification

CLASSES = ("cell", "gel", "plot")


def batch(size: int = 5, *, seed: int = 0, first: int = 0, labels: tuple[str, ...] = CLASSES) -> ClassificationBatch:
    """Random pairs `first`, `first` + 1, ..., with the labels in turn."""
    source = vqa_batch(size, seed=seed)
    shared = {field.name: getattr(source, field.name) for field in fields(ImageTextBatch)}
    shared["index"] = torch.arange(first, first + size)
    return ClassificationBatch(**shared, labels=tuple(labels[row % len(labels)] for row in range(size)))


class Labelled(LightningDataModule):
    """Ready-made batches for every split."""

    classes = CLASSES

    def __init__(self, *batches: ClassificationBatch) -> None:
        super().__init__()
        self.batches = list(batches)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type] # a list does for a Dataset

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def samples(count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random probabilities, rounded so that ties occur, somewhat in favour of the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator) + torch.nn.functional.one_hot(labels, classes)
    return (logits.softmax(1) * 20).round() / 20, labels


def single(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """The metrics of the samples as they are."""
    found = weighted_metrics(probabilities.double().numpy(), labels.numpy(), np.ones((1, len(labels))))
    return {name: value.item() for name, value in found.items()}


def test_metrics_are_those_of_torchmetrics_where_all_classes_occur() -> None:
    probabilities, labels = samples(200, 5)
    found = single(probabilities, labels)
    assert found["accuracy"] == pytest.approx(100 * (probabilities.argmax(1) == labels).float().mean().item())
    for name, function in (
        ("macro_auc", multiclass_auroc),
        ("macro_sensitivity", multiclass_recall),
        ("macro_specificity", multiclass_specificity),
    ):
        expected = function(probabilities, labels, num_classes=5, average="macro", validate_args=False)
        assert found[name] == pytest.approx(100 * expected.item(), abs=1e-3), name


def test_absent_classes_are_left_out_and_unknown_ones_count_as_wrong() -> None:
    # Classes 0 and 1 occur, 2 does not; the last sample is of a class that the model does not have.
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    labels = torch.tensor([0, 0, 1, -1])
    found = single(probabilities, labels)
    assert found["accuracy"] == 25
    # 0: one of two found; 1: none; unknown: none.
    assert found["macro_sensitivity"] == pytest.approx(100 * (1 / 2 + 0 + 0) / 3)
    # Said to be 0 without being it: the last one of two. Said to be 1: the second one of three.
    assert found["macro_specificity"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    # 0: 0.8 and 0.3 against 0.2 and 0.7, three of four won; 1: 0.3 against 0.1, 0.6, 0.2, two of three.
    assert found["macro_auc"] == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)


def test_auc_counts_won_comparisons_with_each_sample_as_often_as_it_weighs() -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 6, 30) / 5, generator.random(30) < 0.4
    weights = generator.integers(0, 4, (3, 30)).astype(np.float64)
    for row, area in zip(weights, weighted_auc(scores, positive, weights), strict=True):
        repeated = [place for place, times in enumerate(row) for _ in range(int(times))]
        above = [scores[place] for place in repeated if positive[place]]
        below = [scores[place] for place in repeated if not positive[place]]
        won = sum((a > b) + (a == b) / 2 for a in above for b in below)
        assert area == pytest.approx(won / (len(above) * len(below)))


def test_intervals_agree_with_resampling_the_samples_and_the_images() -> None:
    probabilities, labels = samples(60, 3, seed=3)
    images = torch.arange(60) // 4
    rows = classification_report(probabilities, labels, images, resamples=3000)
    generator = np.random.default_rng(7)
    of_image = [(images == image).nonzero()[:, 0] for image in range(15)]
    drawn = {
        "interval": list(generator.integers(0, 60, (3000, 60))),
        "image_interval": [
            torch.cat([of_image[i] for i in chosen]) for chosen in generator.integers(0, 15, (3000, 15))
        ],
    }
    value = single(probabilities, labels)
    for interval, resamples in drawn.items():
        values = [single(probabilities[places], labels[places]) for places in resamples]
        for row, name in zip(rows, value, strict=True):
            low, high = np.nanquantile([resample[name] for resample in values], [0.025, 0.975])
            assert row["value"] == value[name]
            assert row[f"{interval}_low"] == pytest.approx(low, abs=1.7)  # a step of the accuracy, 100 / 60
            assert row[f"{interval}_high"] == pytest.approx(high, abs=1.7)


def test_what_is_undefined_is_none_in_the_report_and_absent_from_the_scalars() -> None:
    probabilities, _ = samples(6, 3)
    one_class = torch.zeros(6, dtype=torch.long)
    rows = {row["metric"]: row for row in classification_report(probabilities, one_class, torch.arange(6))}
    assert rows["macro AUC"] == dict.fromkeys(CLASSIFICATION_REPORT_COLUMNS) | {
        "metric": "macro AUC",
        "samples": 6,
        "images": 6,
    }
    assert rows["macro specificity"]["value"] is None
    assert rows["macro sensitivity"]["value"] == rows["accuracy"]["value"]
    scores = ClassificationScores(3)
    scores.update(torch.arange(6), torch.arange(6), probabilities, one_class)
    assert set(scores.compute()) == {"accuracy", "macro_sensitivity"}


def test_loss_is_the_mean_over_known_classes_and_has_a_gradient_without_any() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]], requires_grad=True)
    p = logits.detach().exp() / logits.detach().exp().sum(1, keepdim=True)
    loss = classification_loss(logits, torch.tensor([0, -1, 0]))
    assert loss.item() == pytest.approx(-(p[0, 0].log() + p[2, 0].log()).item() / 2)
    (gradient,) = torch.autograd.grad(classification_loss(logits, torch.tensor([-1, -1, -1])), logits)
    assert torch.equal(gradient, torch.zeros(3, 2))


def test_a_training_step_is_that_of_a_plain_computation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text_options = {**ENCODER.text_options, "dropout": 0.0}
    model, data = Classification(replace(ENCODER, text_options=text_options), OPTIMIZER), batch(4)
    plain: dict[str, float] = {"loss": 0.0, "language": 0.0, "vision": 0.0}

    class Plain(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
            encoder, head = pl_module.encoder, pl_module.head
            width = encoder.width
            for row, label in enumerate(data.labels):
                ids = data.input_ids[row][data.attention_mask[row]][None]
                pixels = encoder.vision.normalize(data.image[row : row + 1])
                features = encoder(pixels, ids, torch.ones_like(ids, dtype=torch.bool))
                z_text = torch.tanh(encoder.text_pooler(features.text[0, 0]))
                z_image = torch.tanh(encoder.image_pooler(features.image[0, 0]))
                truth = CLASSES.index(label)
                logits = head.last(head.hidden(torch.cat([z_text, z_image])))
                plain["loss"] -= (logits.exp()[truth] / logits.exp().sum()).log().item() / 4
                for name, halves in (
                    ("language", (z_text, torch.zeros(width))),
                    ("vision", (torch.zeros(width), z_image)),
                ):
                    values = head.last(head.hidden(torch.cat(halves)))
                    plain[name] += (values.exp()[truth] / values.exp().sum()).item()

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ANN401
            self.contributions = pl_module.modality_contributions()
            named = pl_module.named_parameters()
            self.lacking = [name for name, p in named if p.requires_grad and p.grad is None]

    seen = Plain()
    trainer = quiet_trainer(tmp_path, seen, ModalityCoordination(), max_epochs=1)
    trainer.fit(model, datamodule=Labelled(data))
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(plain["loss"], rel=1e-4)
    assert seen.contributions["language"].item() == pytest.approx(plain["language"], rel=1e-4)
    assert seen.contributions["vision"].item() == pytest.approx(plain["vision"], rel=1e-4)
    assert seen.lacking == []
    assert "coordination/k_vision" in trainer.callback_metrics


def test_the_report_is_that_of_the_predictions_and_names_unknown_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classification(ENCODER, OPTIMIZER, classes=list(CLASSES))
    data = Labelled(batch(5), batch(4, seed=1, first=5, labels=("gel", "unheard of")))
    writer = PredictionWriter()
    trainer = quiet_trainer(tmp_path, writer)
    logged = trainer.test(model, datamodule=data, verbose=False)[0]
    assert writer.path is not None
    written = pd.read_csv(writer.path, keep_default_na=False)
    assert written["correct"].tolist() == (written["label"] == written["ground_truth"]).tolist()
    assert model.test_report()["rows"][0]["value"] == 100 * written["correct"].sum() / 9
    parts = trainer.predict(model, datamodule=data)
    assert parts is not None
    rows: list[Any] = [row for part in parts for row in part]
    assert [row["index"] for row in rows] == list(range(9))
    right = sum(row["label"] == row["ground_truth"] for row in rows)
    assert logged["test/accuracy"] == pytest.approx(100 * right / 9)
    report = model.test_report()
    assert [row["metric"] for row in report["rows"]] == [
        "accuracy",
        "macro AUC",
        "macro sensitivity",
        "macro specificity",
    ]
    assert all(row["interval_low"] <= row["value"] <= row["interval_high"] for row in report["rows"])
    assert any("2 samples are of classes that the model does not have" in note for note in report["notes"])
    with torch.no_grad():
        probabilities = model.eval()(data.batches[0]).softmax(1)
    for row, expected in zip(rows, probabilities, strict=False):
        assert row["confidence"] == pytest.approx(expected.max().item(), abs=1e-4)
        assert row["label"] == CLASSES[int(expected.argmax())]


@pytest.mark.parametrize(("inputs", "changes"), [("image", "input_ids"), ("text", "image")])
def test_a_control_does_not_see_the_other_modality(inputs: Any, changes: str) -> None:  # noqa: ANN401
    torch.manual_seed(0)
    model = Classification(ENCODER, OPTIMIZER, classes=list(CLASSES), inputs=inputs).eval()
    one, two = batch(seed=1), batch(seed=2)
    unseen = {changes: getattr(two, changes)} | ({"attention_mask": two.attention_mask} if changes != "image" else {})
    assert torch.equal(model(one), model(replace(one, **unseen)))
    assert not torch.equal(model(one), model(two))


def test_two_ranks_report_what_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classification(ENCODER, OPTIMIZER, classes=list(CLASSES))
    data = Labelled(batch(4), batch(4, seed=1, first=4), batch(2, seed=2, first=8))
    quiet_trainer(tmp_path).test(model, datamodule=data, verbose=False)
    # Three batches for two ranks: the sampler repeats the first one.
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        default_root_dir=tmp_path,
        callbacks=[ResultsTable()],
        logger=False,
        enable_progress_bar=False,
    )
    expected = model.test_report()["rows"]
    trainer.test(model, datamodule=data, verbose=False)
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == expected


def test_a_checkpoint_is_enough_to_test_again(tmp_path: Path) -> None:
    model, data = Classification(ENCODER, OPTIMIZER), Labelled(batch())
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(model, datamodule=data)
    assert model.classes == CLASSES
    trainer.save_checkpoint(tmp_path / "classification.ckpt")
    expected = trainer.test(model, datamodule=data, verbose=False)
    again = Classification.load_from_checkpoint(tmp_path / "classification.ckpt")
    assert quiet_trainer(tmp_path).test(again, datamodule=data, verbose=False) == expected


def test_without_classes_the_error_says_what_is_needed(tmp_path: Path) -> None:
    data = LightningDataModule()
    with pytest.raises(ValueError, match="needs `classes`, or a data module for classification"):
        quiet_trainer(tmp_path, max_epochs=1).fit(Classification(ENCODER, OPTIMIZER), datamodule=data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contribution": "half"}, "contribution is 'half'; allowed: masked_head"),
        ({"inputs": "none"}, "inputs is 'none'; allowed: both"),
        ({"classes": []}, "the list of classes is empty"),
        ({"classes": ["gel", "gel"]}, "holds one of them twice"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classification(ENCODER, OPTIMIZER, **settings)


def test_runs_can_be_compared_in_one_table_unless_they_are_of_different_tasks(tmp_path: Path) -> None:
    probabilities, labels = samples(30, 3)
    reports = {
        "joint": classification_report(probabilities, labels, torch.arange(30) // 2),
        "one_class": classification_report(probabilities, torch.zeros(30, dtype=torch.long), torch.arange(30) // 2),
        "vqa": [{"group": "open", "questions": 1, "accuracy": 50.0}],
    }
    for name, rows in reports.items():
        (tmp_path / name).mkdir()
        report = {"title": name, "columns": list(rows[0]), "rows": rows}
        (tmp_path / name / "results.json").write_text(json.dumps(report))
    console = Console(width=150, record=True, file=io.StringIO())
    for table in as_tables(configurations(read_runs([tmp_path / "joint", tmp_path / "one_class"])), console.width):
        console.print(table)
    text = console.export_text()
    row = reports["joint"][1]
    assert f"{row['value']:.1f} " in text
    assert f"[{row['interval_low']:.1f}, {row['interval_high']:.1f}]" in text
    assert "macro AUC" in text and "(30; " in text
    assert "nan" not in text
    with pytest.raises(ValueError, match="is of another task than"):
        read_runs([tmp_path / "joint", tmp_path / "vqa"])
