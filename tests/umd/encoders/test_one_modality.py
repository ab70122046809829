"""Models of the image alone, or of the text alone: the baselines of UMD's Table 3."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, RECONSTRUCTION, Batches, quiet_trainer, vqa_batch
from umd.encoders import MultimodalEncoder
from umd.modules import MRPretrain, VQAClassifier


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Gradients(Callback):
    """Notes the trainable parameters that have no gradient when the optimizer steps."""

    missing: list[str] | None = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.missing = [n for n, p in pl_module.named_parameters() if p.requires_grad and p.grad is None]


IMAGE_ONLY = replace(ENCODER, text=None, text_options={})
TEXT_ONLY = replace(ENCODER, vision=None, vision_options={})


@pytest.mark.parametrize("config", [IMAGE_ONLY, TEXT_ONLY], ids=["image", "text"])
def test_a_model_of_one_modality_answers_from_it_alone(config: Any, tmp_path: Path) -> None:  # noqa: ANN401
    module = VQAClassifier(config, OPTIMIZER, answers=list(ANSWERS))
    gradients = Gradients()
    trainer = quiet_trainer(tmp_path, gradients, max_steps=1)
    trainer.fit(module, datamodule=Batches([vqa_batch()]))
    assert gradients.missing == []
    assert module.modality_contributions() == {}
    module.eval()
    one, other = vqa_batch(seed=0), vqa_batch(seed=1)
    with torch.no_grad():
        pooled = module.pool(one)
        kept = ("image",) if config.text is None else ("input_ids", "attention_mask")
        mixed = replace(other, **{name: getattr(one, name) for name in kept})
        assert pooled.joint.shape == (len(one), config.fusion_width)
        assert torch.equal(module(mixed), module(one))
        assert not torch.allclose(module(other), module(one))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = VQAClassifier.load_from_checkpoint(tmp_path / "one.ckpt")
    with torch.no_grad():
        assert torch.equal(again.eval()(one), module(one))


@pytest.mark.parametrize("pooling", ["first", "mean", "mean_padded"])
def test_z_of_one_modality_is_its_own_pooled_tokens(pooling: Any) -> None:  # noqa: ANN401 - a Literal
    encoder, batch = MultimodalEncoder(replace(TEXT_ONLY, pooling=pooling)).eval(), vqa_batch()
    mask = batch.attention_mask
    with torch.no_grad():
        z = encoder.pool(encoder(encoder.vision.normalize(batch.image), batch.input_ids, mask)).joint
        tokens = encoder.fusion.text_projection(encoder.text(batch.input_ids, mask))
        for row, found in enumerate(z):
            read = {"first": tokens[row, :1], "mean": tokens[row][mask[row]], "mean_padded": tokens[row]}[pooling]
            torch.testing.assert_close(found, encoder.text_pooler(read.mean(0)).tanh())


def test_what_needs_two_modalities_is_refused_with_one() -> None:
    with pytest.raises(ValueError, match=r"encoder\.text is null.*ModalityCoordination"):
        VQAClassifier(IMAGE_ONLY, OPTIMIZER, answers=list(ANSWERS)).modality_parameters()
    with pytest.raises(ValueError, match="inputs is 'image'"):
        VQAClassifier(IMAGE_ONLY, OPTIMIZER, answers=list(ANSWERS), inputs="image")
    with pytest.raises(ValueError, match=r"encoder\.vision is null, but MRPretrain"):
        MRPretrain(TEXT_ONLY, OPTIMIZER, RECONSTRUCTION)
    with pytest.raises(ValueError, match="both null"):
        replace(TEXT_ONLY, text=None, text_options={})
    with pytest.raises(ValueError, match="vision is null, so vision_weights must not be set"):
        replace(TEXT_ONLY, vision_weights="default")
