from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from callbacks.prediction_writer import PredictionWriter, in_split_order
from umd.files import UserError

ANSWERS = [
    'the "left", lower lobe',
    "first line\nsecond line",
    "carriage\rreturn",
    "return\r\nand line",
    "Größe µm 肺 🫁",
    "",
    "n/a",
    "=1+1",
    " blanks ",
    "tab\tand 'quotes'",
]


class Answering(LightningModule):
    def predict_step(self, batch: torch.Tensor, batch_idx: int, dataloader_idx: int = 0) -> Any:  # noqa: ANN401
        return [
            {"question_id": f"q{i}", "index": i, "answer": ANSWERS[i % len(ANSWERS)], "confidence": i / 7}
            for i in batch.tolist()
        ]


class Returning(LightningModule):
    def __init__(self, outputs: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.outputs = outputs

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> Any:  # noqa: ANN401
        return self.outputs


class Tested(LightningModule):
    """Returns rows or, as most modules do, something else."""

    def __init__(self, returns: Callable[[int], Any]) -> None:
        super().__init__()
        self.returns = returns

    def test_step(self, batch: torch.Tensor, batch_idx: int) -> Any:  # noqa: ANN401
        return self.returns(batch_idx)


def predict(
    module: LightningModule,
    callback: PredictionWriter,
    folder: Path,
    indices: list[int],
    loaders: int = 1,
    **arguments: Any,  # noqa: ANN401
) -> None:
    data: Any = [DataLoader(cast(Any, torch.tensor(indices)), batch_size=4) for _ in range(loaders)]
    data = data if loaders > 1 else data[0]
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        **arguments,
    )
    if isinstance(module, Tested):
        trainer.test(module, dataloaders=data, verbose=False)
    else:
        trainer.predict(module, dataloaders=data, return_predictions=False)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_kind_of_text_comes_back_unchanged(tmp_path: Path) -> None:
    callback = PredictionWriter()
    predict(Answering(), callback, tmp_path / "run", list(range(len(ANSWERS))))
    path = tmp_path / "run/predictions.csv"
    assert callback.path == path
    rows = read(path)
    assert list(rows[0]) == ["index", "question_id", "answer", "confidence"]
    assert [row["answer"] for row in rows] == ANSWERS
    assert [float(row["confidence"]) for row in rows] == [i / 7 for i in range(len(ANSWERS))]
    frame = pd.read_csv(path, keep_default_na=False)
    assert frame["answer"].tolist() == ANSWERS
    assert frame["index"].tolist() == list(range(len(ANSWERS)))
    assert {found.name for found in path.parent.iterdir()} == {"predictions.csv", "predictions.json"}
    told = json.loads(path.with_suffix(".json").read_text())
    assert (told["split"], told["checkpoint"], told["limits"]) == ("test", None, None)


def test_rows_stand_in_the_order_of_the_split_and_once(tmp_path: Path) -> None:
    predict(Answering(), PredictionWriter(name="answers"), tmp_path, [8, 3, 0, 11, 3, 2, 10, 0])
    assert [row["index"] for row in read(tmp_path / "answers.csv")] == ["0", "2", "3", "8", "10", "11"]


def test_of_a_repeated_index_the_first_row_holds() -> None:
    rows = [{"index": 1, "answer": "a"}, {"index": 0, "answer": "b"}, {"index": 1, "answer": "c"}]
    assert in_split_order(rows) == [{"index": 0, "answer": "b"}, {"index": 1, "answer": "a"}]


def test_a_second_prediction_replaces_the_first(tmp_path: Path) -> None:
    callback = PredictionWriter()
    predict(Answering(), callback, tmp_path, [0, 1, 2])
    predict(Answering(), callback, tmp_path, [5])
    assert [row["index"] for row in read(tmp_path / "predictions.csv")] == ["5"]


@pytest.mark.parametrize("task", ["predict", "test"])
def test_ranks_are_joined_into_what_one_rank_writes(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(Answering(), PredictionWriter(), tmp_path / "one", list(range(9)))
    module, parts = Answering(), list[Any]()

    def gathered(mine: Any) -> list[Any]:  # noqa: ANN401
        parts.insert(0, mine)
        return parts

    monkeypatch.setattr("callbacks.prediction_writer.gather_objects", gathered)
    # Rank 0 goes last, as it waits for the others; the sampler repeated 0 to even the ranks out.
    for rank, indices in ((1, [1, 3, 5, 7, 0]), (0, [0, 2, 4, 6, 8])):
        trainer = cast(
            Trainer,
            SimpleNamespace(
                default_root_dir=str(tmp_path / "two"),
                fast_dev_run=0,
                is_global_zero=rank == 0,
                num_predict_batches=[1],
                num_test_batches=[1],
                predict_dataloaders=[None],
                ckpt_path=None,
                strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
            ),
        )
        callback = PredictionWriter()
        getattr(callback, f"on_{task}_start")(trainer, module)
        rows = module.predict_step(torch.tensor(indices), 0)
        getattr(callback, f"on_{task}_batch_end")(trainer, module, rows, None, 0)
        getattr(callback, f"on_{task}_end")(trainer, module)
        assert (tmp_path / "two").exists() == (rank == 0), "rank 0 alone writes"
    assert (tmp_path / "two/predictions.csv").read_bytes() == (tmp_path / "one/predictions.csv").read_bytes()
    left = {"predictions.csv", "predictions.json"} if task == "predict" else {"predictions.csv"}
    assert {found.name for found in (tmp_path / "two").iterdir()} == left


def test_a_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    predict(Answering(), PredictionWriter(), tmp_path, [0, 1], fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        (torch.zeros(3), UserError, "list of dictionaries, got Tensor"),
        ([{"answer": "a"}], ValueError, "lacks the key 'index'"),
        ([{"index": 0, "answer": "a"}, {"index": 1}], ValueError, "the first one had"),
    ],
)
def test_other_outputs_are_refused(tmp_path: Path, outputs: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        predict(Returning(outputs), PredictionWriter(), tmp_path, [0])


def test_a_test_writes_its_rows_with_true_and_false_as_such(tmp_path: Path) -> None:
    right = [True, False, False]
    predict(
        Tested(lambda place: [{"index": 2 - place, "correct": right[place]}]), PredictionWriter(), tmp_path, [0] * 9
    )
    assert [row["correct"] for row in read(tmp_path / "predictions.csv")] == ["false", "false", "true"]
    frame = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    assert frame["correct"].dtype == bool and frame["correct"].tolist() == right[::-1]


@pytest.mark.parametrize("outputs", [None, torch.zeros(2), {"loss": 1.0}, [1.0, 2.0], []])
def test_a_test_step_without_rows_is_left_alone(outputs: object, tmp_path: Path) -> None:
    predict(Tested(lambda place: outputs), PredictionWriter(), tmp_path, [0] * 5)
    assert list(tmp_path.iterdir()) == []


def test_two_dataloaders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 2 dataloaders"):
        predict(Answering(), PredictionWriter(), tmp_path, [0], loaders=2)
