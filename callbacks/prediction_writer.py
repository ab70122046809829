"""What is answered, in a test or a prediction, as one CSV in the order of the split, each sample once."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from callbacks.provenance import predicted_part, tested_checkpoint, tested_data, versions
from umd.files import UserError, gather_objects, write_whole
from umd.protocols import RESULTS_SCHEMA, Predictions, Split


def in_split_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows sorted by `index`; of rows with one index the first."""
    first: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(int(row["index"]), row)
    return [first[index] for index in sorted(first)]


class PredictionWriter(Callback):
    """Writes what `predict_step` and `test_step` return to `<run folder>/<name>.csv`.

    Both return a list with one dictionary a sample: plain values, the same keys everywhere, among them
    `index`, the sample's place in the split. A `test_step` that returns anything else is left alone, and
    without any row a test writes no file. The file has `index` first and the other keys in the module's
    order, one row a sample in the split's order, whatever the number of ranks and however often a
    distributed sampler repeats one. It is UTF-8, every text is quoted, True and False are written as true and
    false, other values unchanged, so read it with `pandas.read_csv(path, keep_default_na=False)`: an answer may
    well be "n/a".

    A prediction also leaves `<name>.json`, which says of what the answers are (`umd.protocols.Predictions`); of a test
    `results.json` says it.

    On several ranks rank 0 writes what all of them have. In a `fast_dev_run` nothing is written.

    Args:
        name: name of the file without its ending.

    Attributes:
        path: the file that the last test or prediction wrote (set on rank 0).

    Raises:
        UserError: `name` is empty or not a bare file name.
    """

    def __init__(self, name: str = "predictions") -> None:
        super().__init__()
        if not name or Path(name).name != name:
            raise UserError(f"name: must be a file name without a folder, got {name!r}")
        self.name = name
        self.path: Path | None = None
        self._rows: list[dict[str, Any]] = []
        self._position = (0, 0)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember how far the training of what answers had come."""
        self._position = (checkpoint["global_step"], checkpoint["epoch"])

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what came before.

        Raises:
            UserError: there is more than one predict dataloader, whose indices would collide.
        """
        self._rows = []
        _check_one(len(trainer.num_predict_batches))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what came before."""
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's rows.

        Raises:
            UserError: `predict_step` did not return a list of dictionaries; or a row lacks `index`, or has
                other keys than the first row.
        """
        source = f"{type(pl_module).__name__}.predict_step"
        if not _are_rows(outputs):
            raise UserError(f"{source}: must return a list of dictionaries, got {type(outputs).__name__}")
        self._keep(outputs, source)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's rows, if there are any.

        Raises:
            UserError: a row lacks `index`, or has other keys than the first row; or there are rows from more
                than one test dataloader, whose indices would collide.
        """
        if _are_rows(outputs) and outputs:
            _check_one(len(trainer.num_test_batches))
            self._keep(outputs, f"{type(pl_module).__name__}.test_step")

    def _keep(self, rows: Sequence[dict[str, Any]], source: str) -> None:
        for row in rows:
            if "index" not in row:
                raise UserError(f"{source}: a row lacks the key 'index', it has {sorted(row)}")
            if self._rows and row.keys() != self._rows[0].keys():
                raise UserError(
                    f"{source}: a row has the keys {sorted(row)}, the first one had {sorted(self._rows[0])}"
                )
            self._rows.append(row)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the ranks' rows and write the file, and beside it of what they are."""
        self._write(trainer)
        if self.path is None or not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)
        split: Split = getattr(data, "predict_split", "test")
        root = getattr(data, "root", None)
        told = Predictions(
            schema=RESULTS_SCHEMA,
            checkpoint=tested_checkpoint(trainer.ckpt_path, self.path.parent, *self._position),
            split=split,
            root=None if root is None else str(Path(root).absolute()),
            test=tested_data(data, split),
            limits=predicted_part(trainer),
            versions=versions(),
        )
        write_whole(self.path.with_suffix(".json"), json.dumps(told, indent=2, ensure_ascii=False) + "\n")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, where any rank has rows."""
        if trainer.strategy.reduce_boolean_decision(bool(self._rows), all=False):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        rows, self._rows = self._rows, []
        self.path = None
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        rows = [row for part in gather_objects(rows) for row in part]
        if trainer.is_global_zero:
            self.path = Path(trainer.default_root_dir) / f"{self.name}.csv"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, as_csv(in_split_order(rows)))
            rank_zero_info("Predictions written to %s", self.path)


def _are_rows(outputs: object) -> bool:
    return isinstance(outputs, list) and all(isinstance(row, dict) for row in outputs)


def _check_one(loaders: int) -> None:
    if loaders > 1:
        raise UserError(f"PredictionWriter: writes one split, got {loaders} dataloaders")


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows under their keys, `index` first."""
    columns = ["index", *(key for key in (rows[0] if rows else ()) if key != "index")]
    text = StringIO(newline="")
    # Quoting every text: before Python 3.13 a lone carriage return would go unquoted, and split its row.
    writer = csv.DictWriter(text, columns, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _text(value: Any) -> Any:  # noqa: ANN401
    return str(value).lower() if isinstance(value, bool) else value
