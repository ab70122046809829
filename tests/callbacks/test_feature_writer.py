from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray

from callbacks import FeatureWriter
from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, Batches, quiet_trainer, vqa_batch
from umd.batch import VQABatch
from umd.encoders.multimodal import Pooled
from umd.files import UserError
from umd.modules import VQAClassifier


def at(batch: VQABatch, places: list[int]) -> VQABatch:
    """The same questions at other places of the split, called after them."""
    names = tuple(f"frage{place}" for place in places)
    return replace(batch, index=torch.tensor(places), sample_ids=names)


def read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def test_the_file_holds_what_the_head_decides_on_in_the_splits_order_and_once(tmp_path: Path) -> None:
    module = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS))
    first, second = at(vqa_batch(seed=1), [5, 0, 3, 9]), at(vqa_batch(seed=2), [2, 5, 1, 0])
    callback = FeatureWriter()
    trainer = quiet_trainer(tmp_path / "run", callback)
    trainer.predict(module, datamodule=Batches([first, second]), return_predictions=False)
    assert callback.path == tmp_path / "run/features.npz"
    assert [path.name for path in callback.path.parent.iterdir()] == ["features.npz"]
    found = read(callback.path)
    assert sorted(found) == ["image", "index", "label", "sample_id", "text"]
    assert found["index"].tolist() == [0, 1, 2, 3, 5, 9]
    assert found["sample_id"].tolist() == [f"frage{place}" for place in found["index"]]
    assert found["sample_id"].dtype.kind == found["label"].dtype.kind == "U"
    # Of the places that occur twice (0 and 5), the first batch's question holds.
    taken = [(first, 1), (second, 2), (second, 0), (first, 2), (first, 0), (first, 3)]
    assert found["label"].tolist() == [batch.answers[row] for batch, row in taken]
    module.eval()
    with torch.no_grad():
        logits = torch.stack([module(batch)[row] for batch, row in taken])
        pooled = Pooled(text=torch.from_numpy(found["text"]), image=torch.from_numpy(found["image"]))
        torch.testing.assert_close(module.head(pooled), logits)
    assert found["image"].shape == (6, ENCODER.fusion_width) and found["image"].dtype == np.float32


class Pooling(LightningModule):
    """The features of a question are its place in the split."""

    def pooled_features(self, batch: VQABatch) -> dict[str, torch.Tensor]:
        return {"text": batch.index[:, None].float()}

    def predict_step(self, batch: VQABatch, batch_idx: int) -> None:
        pass


def test_ranks_are_joined_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[Any] = []

    def gathered(mine: Any) -> list[Any]:  # noqa: ANN401
        parts.insert(0, mine)
        return parts

    monkeypatch.setattr("callbacks.feature_writer.gather_objects", gathered)
    # Rank 0 goes last, as it waits for the others; the sampler repeated 0 to even the ranks out; rank 2 has nothing.
    for rank, places in ((2, []), (1, [1, 3, 5, 0]), (0, [0, 2, 4, 6])):
        trainer = cast(
            Trainer,
            SimpleNamespace(
                default_root_dir=str(tmp_path),
                fast_dev_run=0,
                is_global_zero=rank == 0,
                num_predict_batches=[1],
                precision_plugin=SimpleNamespace(forward_context=nullcontext),
            ),
        )
        callback = FeatureWriter()
        callback.on_predict_start(trainer, Pooling())
        if places:
            callback.on_predict_batch_end(trainer, Pooling(), None, at(vqa_batch(), places), 0)
        callback.on_predict_end(trainer, Pooling())
    found = read(tmp_path / "features.npz")
    assert found["index"].tolist() == list(range(7)) and found["text"].tolist() == [[place] for place in range(7)]
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]


def test_a_module_without_pooled_features_is_refused(tmp_path: Path) -> None:
    class Other(LightningModule):
        def predict_step(self, batch: VQABatch, batch_idx: int) -> None:
            pass

    with pytest.raises(UserError, match=r"Other has no method pooled_features.*Take FeatureWriter out"):
        quiet_trainer(tmp_path, FeatureWriter()).predict(Other(), datamodule=Batches([vqa_batch()]))
    assert list(tmp_path.iterdir()) == []
