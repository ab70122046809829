"""The pooled features of a split as one NumPy file in the order of the split, each sample once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from umd.batch import ClassificationBatch, ImageTextBatch, VQABatch
from umd.files import UserError, gather_objects
from umd.protocols import HasPooledFeatures

Arrays = dict[str, NDArray[Any]]


def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> Arrays:
    """The parts as one, sorted by `index`; of rows with one index the first."""
    if not parts:  # a rank without a sample
        return {}
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first = np.unique(whole["index"], return_index=True)
    return {name: rows[first] for name, rows in whole.items()}


class FeatureWriter(Callback):
    """Writes what a module pools from the samples of `umd predict` to `<run folder>/<name>.npz`.

    The file holds `index` (N,), each sample's place in the split, `sample_id` (N,), `label` (N,), the name of the
    class or the true answer ("" where the data has neither), and each modality's features (N, D) in float32 under
    the modality's name (`image`, `text`). Read it with `numpy.load(path)`: nothing in it is pickled. Its rows stand
    in the split's order, whatever the number of ranks and however often a distributed sampler repeats one.

    Pooling takes a forward pass of its own. On several ranks rank 0 writes what all of them have. In a
    `fast_dev_run` nothing is written.

    Args:
        name: name of the file without its ending.

    Attributes:
        path: the file that the last prediction wrote (set on rank 0).

    Raises:
        UserError: `name` is empty or not a bare file name.
    """

    def __init__(self, name: str = "features") -> None:
        super().__init__()
        if not name or Path(name).name != name:
            raise UserError(f"name: must be a file name without a folder, got {name!r}")
        self.name = name
        self.path: Path | None = None
        self._parts: list[Arrays] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what came before.

        Raises:
            UserError: the module does not meet `umd.protocols.HasPooledFeatures`; or there is more than one
                predict dataloader, whose indices would collide.
        """
        self._parts = []
        _pooling(pl_module)
        if (loaders := len(trainer.num_predict_batches)) > 1:
            raise UserError(f"FeatureWriter: writes one split, got {loaders} dataloaders")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's features."""
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            features = _pooling(pl_module).pooled_features(batch)
        self._parts.append(
            {
                "index": batch.index.cpu().numpy(),
                "sample_id": np.array(batch.sample_ids, dtype=np.str_),
                "label": np.array(_labels(batch), dtype=np.str_),
                **{name: rows.float().cpu().numpy() for name, rows in features.items()},
            }
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the ranks' parts and write the file."""
        parts, self._parts = self._parts, []
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        whole = joined([part for part in gather_objects(joined(parts)) if part])
        if trainer.is_global_zero:
            self.path = Path(trainer.default_root_dir) / f"{self.name}.npz"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write(self.path, whole)
            rank_zero_info("Features written to %s", self.path)


def _pooling(module: LightningModule) -> HasPooledFeatures:
    if not isinstance(module, HasPooledFeatures):
        raise UserError(
            f"FeatureWriter: {type(module).__name__} has no method pooled_features(batch) "
            "(umd.protocols.HasPooledFeatures). Take FeatureWriter out of trainer.callbacks."
        )
    return module


def _labels(batch: ImageTextBatch) -> tuple[str, ...]:
    if isinstance(batch, ClassificationBatch):
        return batch.labels
    return batch.answers if isinstance(batch, VQABatch) else ("",) * len(batch)


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(temporary, path)
