"""Contrast over a large micro-batch that is encoded in chunks: the gradient is that of one large batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from tests.synthetic import ENCODER, OPTIMIZER, RECONSTRUCTION, Batches, quiet_trainer, vqa_batch
from umd.encoders import MultimodalEncoder
from umd.files import UserError
from umd.losses import views
from umd.modules import MRPretrain
from umd.modules.objectives import Preset

DROPLESS, DROPPING = (replace(ENCODER, text_options={**ENCODER.text_options, "dropout": rate}) for rate in (0.0, 0.3))


def gradients(preset: Preset, chunk: int | None, dropout: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of eight pairs."""
    torch.manual_seed(0)
    encoder = DROPPING if dropout else DROPLESS
    module = MRPretrain(encoder, OPTIMIZER, replace(RECONSTRUCTION, preset=preset, contrastive_chunk=chunk)).train()
    torch.manual_seed(1)
    loss = module.total(module.terms(vqa_batch(8), 0))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("preset", ["clip", "flip"])
def test_without_dropout_chunks_of_any_size_are_one_large_batch(preset: Preset) -> None:
    loss, whole = gradients(preset, None, dropout=False)
    assert {"log_scale", "image_contrast.weight", "text_contrast.weight"} <= whole.keys()
    for chunk in (1, 3, 8, 100):
        again, chunked = gradients(preset, chunk, dropout=False)
        torch.testing.assert_close(again, loss)
        assert chunked.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(chunked[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("preset", ["clip", "flip"])
def test_dropout_is_drawn_once(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding again gives the features that the loss was computed from: as if all activations had been kept."""
    loss, again = gradients(preset, 3, dropout=True)
    monkeypatch.setattr(views, "checkpoint", lambda encode, *rows, **_: encode(*rows))
    kept_loss, kept = gradients(preset, 3, dropout=True)
    assert torch.equal(loss, kept_loss)
    assert all(torch.equal(again[name], gradient) for name, gradient in kept.items())
    assert not torch.equal(gradients(preset, None, dropout=False)[0], loss)


@pytest.mark.parametrize("chunk", [2, None])
def test_no_activation_inside_an_encoder_is_kept(chunk: int | None) -> None:
    """Tokens have three dimensions; what pairs are made of and compared by has four or two."""
    module = MRPretrain(DROPLESS, OPTIMIZER, replace(RECONSTRUCTION, preset="clip", contrastive_chunk=chunk))
    dimensions: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        dimensions.add(tensor.ndim)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module.total(module.terms(vqa_batch(8), 0))
    assert (3 in dimensions) == (chunk is None)


class Logged(Callback):
    def __init__(self) -> None:
        self.negatives: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.negatives.append(float(trainer.callback_metrics["train/negatives"]))


def test_the_log_says_how_many_negatives_a_pair_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module, seen = MRPretrain(ENCODER, OPTIMIZER, replace(RECONSTRUCTION, preset="clip")), Logged()
    with caplog.at_level("INFO"):
        quiet_trainer(tmp_path, seen, max_epochs=1, accumulate_grad_batches=2).fit(
            module, datamodule=Batches([vqa_batch(4, seed=seed) for seed in range(4)])
        )
    assert seen.negatives == [3.0] * 4
    (line,) = [record.message for record in caplog.records if "contrasted" in record.message]
    assert line.startswith("each pair is contrasted with the 3 others of its micro-batch, over all devices")
    assert "--data.batch_size 8 --trainer.accumulate_grad_batches 1" in line
    assert module.lineage()[0]["facts"] == {"negatives": "3 for each pair"}


def test_an_encoder_that_normalises_over_batches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    build = MRPretrain.build_encoder

    def with_norm(self: MRPretrain, settings: Any, published: bool) -> MultimodalEncoder:  # noqa: ANN401 - as there
        encoder = build(self, settings, published)
        encoder.vision.add_module("norm", nn.BatchNorm1d(2))
        return encoder

    monkeypatch.setattr(MRPretrain, "build_encoder", with_norm)
    settings = replace(RECONSTRUCTION, preset="clip")
    MRPretrain(ENCODER, OPTIMIZER, settings)
    with pytest.raises(UserError, match="contrastive_chunk is 2, but the encoder normalises over batches"):
        MRPretrain(ENCODER, OPTIMIZER, replace(settings, contrastive_chunk=2))
