"""Retrieval against plain loops with two full encoder passes a pair."""

from __future__ import annotations

import json
import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks import ModalityCoordination, ResultsTable
from tests.synthetic import ENCODER, OPTIMIZER, RECONSTRUCTION, Batches, quiet_trainer, vqa_batch
from umd.batch import ImageTextBatch, RetrievalBatch
from umd.files import UserError
from umd.metrics.retrieval import recall, recall_report, true_ranks
from umd.modules import MRPretrain, Retrieval, TDCalib
from umd.modules.objectives import Preset
from umd.modules.umd_stage import UMDStage
from umd.optim import OptimizerConfig

DROPLESS = replace(ENCODER, text_options={**ENCODER.text_options, "dropout": 0.0})


def pairs(size: int = 4, *, negatives: int = 0, seed: int = 0, first: int = 0, length: int = 9) -> RetrievalBatch:
    """Random pairs `first`, `first` + 1, ..., each with random negatives."""
    own = vqa_batch(size, seed=seed, length=length)
    more = vqa_batch(max(size * negatives, 1), seed=seed + 1000, length=length)
    shape = (size, negatives, length)
    shared = {field.name: getattr(own, field.name) for field in fields(ImageTextBatch)}
    shared |= {
        "index": torch.arange(first, first + size),
        "sample_ids": tuple(f"pair{first + row}" for row in range(size)),
        "texts": tuple(f"text {first + row}" for row in range(size)),
        "image_names": tuple(f"{first + row}.png" for row in range(size)),
    }
    return RetrievalBatch(
        **shared,
        negative_input_ids=more.input_ids[: size * negatives].reshape(shape),
        negative_attention_mask=more.attention_mask[: size * negatives].reshape(shape),
    )


class Pairs(LightningDataModule):
    """Ready-made batches for every split."""

    def __init__(self, batches: list[RetrievalBatch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type] # a list does for a Dataset

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def module(**settings: Any) -> Retrieval:  # noqa: ANN401
    """A model whose scores differ visibly: the projections' initial weights, twice as large."""
    torch.manual_seed(0)
    made = Retrieval(**{"encoder": DROPLESS, "optimizer": OPTIMIZER, **settings})
    with torch.no_grad():
        for parameter in (*made.encoder.fusion.parameters(), *made.scorer.parameters()):
            if parameter.ndim > 1:
                parameter.mul_(2)
    return made


def split_with_twins() -> list[RetrievalBatch]:
    """Ten pairs in three batches of different lengths; pairs 1 and 8 have the same text; pair 0 comes twice."""
    batches = [
        pairs(4, seed=1),
        pairs(4, seed=2, first=4, length=12),
        pairs(3, seed=3, first=8, length=9),
    ]
    last = batches[2]
    ids, index = last.input_ids.clone(), last.index.clone()
    image = last.image.clone()
    ids[0], ids[2] = batches[0].input_ids[1], batches[0].input_ids[0]
    image[2], index[2] = batches[0].image[0], 0
    batches[2] = replace(last, input_ids=ids, attention_mask=ids != 0, image=image, index=index)
    return batches


def plain_scores(model: Retrieval, batches: list[RetrievalBatch]) -> Tensor:
    """(M, M) scores, image by text: one pair at a time through the whole encoder."""
    model = model.eval()
    singles = {
        int(batch.index[row]): (
            batch.image[row : row + 1],
            batch.input_ids[row : row + 1, : int(batch.attention_mask[row].sum())],
        )
        for batch in batches
        for row in range(len(batch))
    }
    scores = torch.empty(len(singles), len(singles), dtype=torch.float64)
    with torch.no_grad():
        for i, (image, _) in sorted(singles.items()):
            for t, (_, ids) in sorted(singles.items()):
                pixels = model.encoder.vision.normalize(image)
                pooled = model.encoder.pool(model.encoder(pixels, ids, torch.ones_like(ids, dtype=torch.bool)))
                z = torch.cat([pooled.text, pooled.image], dim=1)[0]
                scores[i, t] = model.scorer.linear.weight[0].double() @ z.double() + model.scorer.linear.bias[0]
    return scores


def plain_ranks(scores: list[list[float]]) -> list[int]:
    """Of each row's own column: 1 + how many other columns do not score less."""
    return [
        1 + sum(not other < row[place] for column, other in enumerate(row) if column != place)
        for place, row in enumerate(scores)
    ]


def seen_scores(model: Retrieval) -> list[Any]:
    """What the model scores in evaluation, kept as it goes."""
    seen: list[Any] = []
    score = model.score

    def keep(gallery: Any) -> Any:  # noqa: ANN401
        seen.append(score(gallery))
        return seen[-1]

    model.score = keep  # type: ignore[method-assign]
    return seen


def test_loss_and_contributions_are_those_of_a_loop_over_pairs(tmp_path: Path) -> None:
    model, batch = module(), pairs(3, negatives=4)
    losses, language, vision = [], [], []
    weight, bias = model.scorer.linear.weight[0].detach(), model.scorer.linear.bias.detach()
    width = DROPLESS.fusion_width
    for row in range(3):
        whole, text_half, image_half = [], [], []
        for number in range(5):
            ids = batch.input_ids[row] if number == 0 else batch.negative_input_ids[row, number - 1]
            ids = ids[ids != 0][None]
            pixels = model.encoder.vision.normalize(batch.image[row : row + 1])
            features = model.encoder(pixels, ids, torch.ones_like(ids, dtype=torch.bool))
            z_text = torch.tanh(model.encoder.text_pooler(features.text[0, 0]))
            z_image = torch.tanh(model.encoder.image_pooler(features.image[0, 0]))
            text_half.append((weight[:width] @ z_text + bias / 2).exp().item())
            image_half.append((weight[width:] @ z_image + bias / 2).exp().item())
            whole.append((weight @ torch.cat([z_text, z_image]) + bias).exp().item())
        losses.append(-torch.tensor(whole[0] / sum(whole)).log().item())
        language.append(text_half[0] / sum(text_half))
        vision.append(image_half[0] / sum(image_half))

    class AtStep(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ANN401
            self.contributions = pl_module.modality_contributions()

    seen = AtStep()
    trainer = quiet_trainer(tmp_path, seen, max_epochs=1)
    trainer.fit(model, datamodule=Pairs([batch]))
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(sum(losses) / 3, rel=1e-4)
    assert seen.contributions["language"].item() == pytest.approx(sum(language), rel=1e-4)
    assert seen.contributions["vision"].item() == pytest.approx(sum(vision), rel=1e-4)
    assert model.modality_contributions() == {}


@pytest.mark.parametrize("cache", ["cpu", "device"])
def test_evaluation_ranks_as_the_plain_double_loop_does(cache: str, tmp_path: Path) -> None:
    model, batches = module(pairs_per_pass=7, cache=cache), split_with_twins()
    scores = plain_scores(model.double(), batches)
    seen = seen_scores(model)
    quiet_trainer(tmp_path).test(model, datamodule=Pairs(batches), verbose=False)
    expected = {
        "text_to_image": plain_ranks(scores.T.tolist()),
        "image_to_text": plain_ranks(scores.tolist()),
    }
    assert {name: ranks.tolist() for name, ranks in seen[0].ranks().items()} == expected
    assert len({round(value, 6) for value in scores.flatten().tolist()}) > 80  # the model does tell pairs apart
    rows = {row["metric"]: row for row in model.test_report()["rows"]}
    for name, places in expected.items():
        for k in (1, 5, 10):
            row = rows[f"{name.replace('_', ' ')} R@{k}"]
            assert row["recall"] == pytest.approx(100 * sum(place <= k for place in places) / 10)
            assert row["queries"] == 10
            assert row["interval_low"] <= row["recall"] <= row["interval_high"]
    assert any("10 images against 10 texts" in note for note in model.test_report()["notes"])
    assert any("9 texts differ" in note for note in model.test_report()["notes"])


def test_each_image_and_text_is_encoded_once(tmp_path: Path) -> None:
    model, batches = module(), [pairs(4), pairs(3, first=4, seed=5)]
    rows = {"vision": 0, "text": 0}
    for name, encoder in (("vision", model.encoder.vision), ("text", model.encoder.text)):

        def count(_: Any, inputs: tuple[Tensor, ...], __: Any, name: str = name) -> None:  # noqa: ANN401
            rows[name] += len(inputs[0])

        encoder.register_forward_hook(count)
    quiet_trainer(tmp_path).test(model, datamodule=Pairs(batches), verbose=False)
    assert rows == {"vision": 7, "text": 7}


def test_a_second_validation_starts_from_nothing(tmp_path: Path) -> None:
    model, data = module(), Pairs([pairs(4), pairs(2, first=4, seed=5)])
    trainer = quiet_trainer(tmp_path, limit_val_batches=None)
    first = trainer.validate(model, datamodule=data, verbose=False)
    model.collect(pairs(3, seed=9))  # what a pass leaves behind that was broken off
    assert trainer.validate(model, datamodule=data, verbose=False) == first
    assert set(first[0]) == {
        *(f"validation/{way}_recall{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)),
        "validation/mean_recall",
    }


def test_two_ranks_report_what_one_does(tmp_path: Path) -> None:
    model, batches = module(pairs_per_pass=7), split_with_twins()
    quiet_trainer(tmp_path).test(model, datamodule=Pairs(batches), verbose=False)
    alone = model.test_report()["rows"]
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
    trainer.test(module(pairs_per_pass=7), datamodule=Pairs(batches), verbose=False)
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == alone


def test_a_tie_and_a_score_that_is_no_number_count_against_the_query() -> None:
    nan = float("nan")
    scores = torch.tensor([[2.0, 1.0, 0.0], [3.0, 3.0, 1.0], [1.0, nan, 2.0]])
    assert true_ranks(scores).tolist() == [1, 2, 2]
    assert true_ranks(torch.full((3, 3), nan)).tolist() == [3, 3, 3]
    assert true_ranks(torch.full((3, 3), -torch.inf)).tolist() == [3, 3, 3]


def test_recall_counts_the_places_up_to_k() -> None:
    ranks = {"text_to_image": torch.tensor([1, 6, 5, 11]), "image_to_text": torch.tensor([2, 1, 1, 10])}
    values = recall(ranks)
    assert [values[f"text_to_image_recall{k}"] for k in (1, 5, 10)] == [25, 50, 75]
    assert [values[f"image_to_text_recall{k}"] for k in (1, 5, 10)] == [50, 75, 100]
    assert values["mean_recall"] == pytest.approx(62.5)
    assert [row["recall"] for row in recall_report(ranks, torch.arange(4))] == [25, 50, 75, 50, 75, 100]


def test_half_precision_makes_no_ties() -> None:
    model, batch = module().eval(), pairs(2, negatives=30)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = model(batch)
    assert scores.dtype == torch.float32
    assert len(scores[0].unique()) == 31


def test_mixed_precision_evaluates_from_features_of_lower_precision(tmp_path: Path) -> None:
    model, batches = module(rerank=4, contrast_width=6), split_with_twins()
    seen = seen_scores(model)
    quiet_trainer(tmp_path, precision="bf16-mixed").test(model, datamodule=Pairs(batches), verbose=False)
    exact = plain_scores(module(), batches)
    read = seen[0].near_text | seen[0].near_image
    error = (seen[0].scores.double() - exact[:, first_columns(seen[0])])[read].abs().max()
    assert error < 0.05 * (exact.max() - exact.min())


def first_columns(scores: Any) -> list[int]:  # noqa: ANN401
    """For each different text, the first pair that has it."""
    owners = scores.text_of.tolist()
    return [owners.index(text) for text in range(scores.scores.shape[1])]


@pytest.mark.parametrize("kept", [3, 50])
def test_a_first_pass_keeps_the_nearest_and_says_how_many_true_pairs_it_kept(kept: int, tmp_path: Path) -> None:
    model, batches = module(rerank=kept, contrast_width=6), [pairs(4), pairs(3, first=4, seed=5)]
    exact = plain_scores(model.double(), batches)
    summaries: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for batch in batches:
            image = model.encoder.vision(model.encoder.vision.normalize(batch.image))[:, 0]
            text = model.encoder.text(batch.input_ids, batch.attention_mask)[:, 0]
            summaries += zip(model.image_contrast(image), model.text_contrast(text), strict=True)
    cosine = [[torch.cosine_similarity(i, t, dim=0).item() for _, t in summaries] for i, _ in summaries]
    expected, survived = {}, {}
    for name, scores, near in (
        ("image_to_text", exact.tolist(), cosine),
        ("text_to_image", exact.T.tolist(), [list(column) for column in zip(*cosine, strict=True)]),
    ):
        ranks = []
        for row in range(7):
            short = sorted(range(7), key=lambda place, row=row, near=near: -near[row][place])[:kept]  # type: ignore[misc]
            better = sum(scores[row][other] > scores[row][row] for other in short)
            ranks.append(1 + better if row in short else 7)
        expected[name] = ranks
        survived[name] = 100 * sum(sorted(near[row])[::-1][:kept].count(near[row][row]) for row in range(7)) / 7
    seen = seen_scores(model)
    logged = quiet_trainer(tmp_path).test(model, datamodule=Pairs(batches), verbose=False)[0]
    assert {name: ranks.tolist() for name, ranks in seen[0].ranks().items()} == expected
    for name, share in survived.items():
        assert logged[f"test/{name}_survived"] == pytest.approx(share, abs=1e-3)


def test_the_first_pass_is_the_contrast_that_clip_has_trained(tmp_path: Path) -> None:
    """Of 32 pairs learnt by heart nearly all survive a first pass down to 3, where chance is one in ten."""
    texts = {**ENCODER.text_options, "dropout": 0.0}
    encoder = replace(ENCODER, text_options=texts)
    fast, batch = replace(OPTIMIZER, lr=1e-2, weight_decay=0.0), pairs(32, negatives=1)
    torch.manual_seed(0)
    clip = MRPretrain(encoder, fast, replace(RECONSTRUCTION, preset="clip", contrastive_width=12))
    trainer = quiet_trainer(tmp_path, max_steps=60)
    trainer.fit(clip, datamodule=Pairs([batch]))
    trainer.save_checkpoint(tmp_path / "clip.ckpt")
    weights = clip.state_dict()

    still = replace(OPTIMIZER, lr=1e-30)
    model = Retrieval(encoder, still, str(tmp_path / "clip.ckpt"), rerank=3)
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(model, datamodule=Pairs([batch]))
    assert torch.equal(model.image_contrast.weight, weights["image_contrast.weight"])
    trainer.save_checkpoint(tmp_path / "retrieval.ckpt")
    logged = quiet_trainer(tmp_path).test(model, datamodule=Pairs([batch]), verbose=False)[0]
    assert logged["test/image_to_text_survived"] >= 90
    assert logged["test/text_to_image_survived"] >= 90

    # The contrast is in the checkpoint, for a test and for a training that goes on.
    again = Retrieval.load_from_checkpoint(tmp_path / "retrieval.ckpt", weights_only=True)
    assert quiet_trainer(tmp_path).test(again, datamodule=Pairs([batch]), verbose=False)[0] == logged
    (tmp_path / "clip.ckpt").unlink()
    resumed = Retrieval(encoder, still, str(tmp_path / "clip.ckpt"), rerank=3)
    quiet_trainer(tmp_path, max_steps=2).fit(
        resumed, datamodule=Pairs([batch]), ckpt_path=str(tmp_path / "retrieval.ckpt")
    )
    assert torch.equal(resumed.text_contrast.weight, weights["text_contrast.weight"])


def test_a_first_pass_that_nothing_has_trained_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), datamodule=Batches([vqa_batch()]))
    trainer.save_checkpoint(tmp_path / "umd.ckpt")
    for given in (
        Retrieval(ENCODER, OPTIMIZER, rerank=5),
        Retrieval(ENCODER, OPTIMIZER, str(tmp_path / "umd.ckpt"), 5),
    ):
        with pytest.raises(UserError, match="rerank is 5, but nothing has trained a first pass"):
            quiet_trainer(tmp_path, max_steps=1).fit(given, datamodule=Pairs([pairs(negatives=2)]))


def train_and_save(module: UMDStage, path: Path) -> str:
    """The checkpoint of a stage after one step."""
    trainer = quiet_trainer(path.parent, max_epochs=1)
    trainer.fit(module, datamodule=Batches([vqa_batch()]))
    trainer.save_checkpoint(path)
    return str(path)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_score_starts_as_the_matching_heads_match_row(calibrated: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    earlier: MRPretrain | TDCalib = MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION)
    path = train_and_save(earlier, tmp_path / "pretrained.ckpt")
    if calibrated:
        earlier = TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, path)
        path = train_and_save(earlier, tmp_path / "calibrated.ckpt")
    later = Retrieval(ENCODER, OPTIMIZER, path)
    start: dict[str, Tensor] = {}

    class Started(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
            start.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    quiet_trainer(tmp_path, Started(), max_steps=1).fit(later, datamodule=Pairs([pairs(negatives=2)]))
    weights = earlier.state_dict()
    assert torch.equal(start["scorer.linear.weight"][0], weights["matching_head.weight"][1])
    assert torch.equal(start["scorer.linear.bias"][0], weights["matching_head.bias"][1])
    assert torch.equal(start["encoder.text_pooler.weight"], weights["encoder.text_pooler.weight"])


@pytest.mark.parametrize("preset", ["mae", "clip", None])
def test_without_a_matching_head_the_score_starts_at_random_and_says_so(
    preset: Preset | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after a calibration, which carries the matching head along where there is one."""
    pretrained: str | None = None
    if preset is not None:
        mae = MRPretrain(ENCODER, OPTIMIZER, replace(RECONSTRUCTION, preset=preset))
        pretrained = train_and_save(mae, tmp_path / "pretrained.ckpt")
    calibrated = TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, pretrained)
    path = train_and_save(calibrated, tmp_path / "calibrated.ckpt")
    assert "matching_head.weight" not in TDCalib.load_from_checkpoint(path, weights_only=True).state_dict()
    later = Retrieval(ENCODER, OPTIMIZER, path)
    with caplog.at_level(logging.WARNING, logger="umd"):
        quiet_trainer(tmp_path, max_steps=1).fit(later, datamodule=Pairs([pairs(negatives=2)]))
    assert "has no matching head: the score starts at random" in caplog.text


def test_every_trained_parameter_gets_a_gradient_under_coordination(tmp_path: Path) -> None:
    class Gradients(Callback):
        lacking: tuple[str, ...] = ("nothing seen",)

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ANN401
            named = pl_module.named_parameters()
            self.lacking = tuple(name for name, p in named if p.requires_grad and p.grad is None)

    seen, model = Gradients(), module()
    bias = model.scorer.linear.bias.clone()
    trainer = quiet_trainer(tmp_path, seen, ModalityCoordination(), max_epochs=1)
    trainer.fit(model, datamodule=Pairs([pairs(negatives=3)]))
    assert seen.lacking == ()
    assert "coordination/k_vision" in trainer.callback_metrics
    assert torch.equal(model.scorer.linear.bias, bias)


def test_training_finds_the_true_text(tmp_path: Path) -> None:
    model, batch = module(optimizer=replace(OPTIMIZER, lr=1e-3)), pairs(6)
    negatives = torch.stack([batch.input_ids[[(row + k) % 6 for k in range(1, 6)]] for row in range(6)])
    batch = replace(batch, negative_input_ids=negatives, negative_attention_mask=negatives != 0)
    trainer = quiet_trainer(tmp_path, max_epochs=60)
    trainer.fit(model, datamodule=Pairs([batch]))
    assert trainer.test(model, datamodule=Pairs([batch]), verbose=False)[0]["test/image_to_text_recall1"] == 100


def test_a_checkpoint_is_enough_to_test_again(tmp_path: Path) -> None:
    model, data = module(rerank=5, contrast_width=6), Pairs([pairs(negatives=2)])
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "retrieval.ckpt")
    expected = trainer.test(model, datamodule=data, verbose=False)
    again = Retrieval.load_from_checkpoint(tmp_path / "retrieval.ckpt")
    assert again.rerank == 5
    assert quiet_trainer(tmp_path).test(again, datamodule=data, verbose=False) == expected


def test_a_prediction_lists_the_five_best_texts(tmp_path: Path) -> None:
    model, batches = module(), split_with_twins()
    exact = plain_scores(module(), batches)
    parts = quiet_trainer(tmp_path).predict(model, datamodule=Pairs(batches))
    assert parts is not None
    rows: list[Any] = [row for part in parts for row in part]
    assert [row["index"] for row in rows] == list(range(10))
    different = [place for place in range(10) if place != 8]  # whose text is that of 1
    for row in rows:
        scores = exact[row["index"]].tolist()
        best = sorted(different, key=lambda place, scores=scores: -scores[place])[:5]  # type: ignore[misc]
        assert [row[f"text_{k}"] for k in range(1, 6)] == [f"text {place}" for place in best]
        assert row["rank"] == plain_ranks(exact.tolist())[row["index"]]
        assert row["image"] == f"{row['index']}.png"
        assert row["ground_truth"] == f"text {row['index']}"


def test_no_negatives_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the batch has none: see"):
        quiet_trainer(tmp_path, max_epochs=1).fit(module(), datamodule=Pairs([pairs()]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": "disk"}, "cache is 'disk'; allowed: cpu, device"),
        ({"rerank": 0}, "rerank is 0"),
        ({"contrast_width": 0}, "contrast_width is 0"),
        ({"pairs_per_pass": 0}, "pairs_per_pass is 0"),
        ({"encoder": replace(ENCODER, pooling="mean_padded")}, "pooling is 'mean_padded'; retrieval allows"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retrieval(**{"encoder": ENCODER, "optimizer": OptimizerConfig(), **settings})
