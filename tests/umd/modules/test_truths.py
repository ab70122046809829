"""Samples with several right answers, or with none that is known: in the score, in the loss, and in the rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule

from callbacks import PredictionWriter, ResultsTable
from tests.synthetic import ANSWERS, ENCODER, OPTIMIZER, Batches, quiet_trainer, vqa_batch
from tests.umd.modules.test_classification import CLASSES, Labelled
from tests.umd.modules.test_classification import batch as labelled_batch
from tests.umd.modules.test_vqa_generation import CANDIDATES, batch_of, stage
from umd.batch import VQABatch
from umd.commands.compare import read_runs
from umd.files import UserError
from umd.losses.answering import answer_loss
from umd.metrics.predictions import answers_of, read_predictions
from umd.modules import Classification, VQAClassifier, VQAGenerator
from umd.modules.ranked import ranked

Stage = VQAClassifier | VQAGenerator


def judged_by(batch: VQABatch, accepted: Sequence[tuple[str, ...]]) -> VQABatch:
    """The batch with other true answers."""
    return replace(batch, answers=tuple(one[0] if one else "" for one in accepted), accepted=tuple(accepted))


class Read(Batches):
    """Batches whose written answers can be read."""

    def answer_tokens(self, answers: Sequence[str]) -> list[list[int]]:
        return [CANDIDATES[answer] for answer in answers]

    def answer_text(self, token_ids: Sequence[int]) -> str:
        return {tuple(ids[1:-1]): name for name, ids in CANDIDATES.items()}.get(tuple(token_ids), "?")


def classifier() -> tuple[VQAClassifier, VQABatch]:
    torch.manual_seed(0)
    return VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS)).eval(), vqa_batch(4)


def generator() -> tuple[VQAGenerator, VQABatch]:
    return stage(), batch_of(4)


@pytest.mark.parametrize("made", [classifier, generator])
def test_any_accepted_answer_is_right_and_what_nobody_knows_does_not_count(
    made: Callable[[], tuple[Stage, VQABatch]], tmp_path: Path
) -> None:
    module, batch = made()
    trainer = quiet_trainer(tmp_path)
    given = [row["answer"] for row in trainer.predict(module, datamodule=Read([batch]))[0]]  # type: ignore[index]
    wrong = [next(answer for answer in module.answers if answer != one) for one in given]
    batch = judged_by(batch, [(wrong[0], given[0]), (wrong[1], "unheard of"), (), ("unheard of", "unseen")])
    batch = replace(batch, closed=torch.tensor([True, False, False, False]), closed_by_answer=(True,) * 4)
    writer = PredictionWriter()
    tester = quiet_trainer(tmp_path, ResultsTable(), writer)
    tested = tester.test(module, datamodule=Read([batch]), verbose=False)[0]
    assert tested["test/overall"] == pytest.approx(100 / 3)
    overall = next(row for row in module.test_report()["rows"] if row["group"] == "overall")
    assert overall["questions"] == 3 and overall["ceiling"] == pytest.approx(200 / 3)
    table = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    assert table["correct"].tolist() == ["true", "false", "", "false"]
    assert table["also_accepted"].tolist() == [given[0], "unheard of", "", "unseen"]
    assert table["ground_truth"].tolist() == [wrong[0], wrong[1], "", "unheard of"]
    assert table["closed"].tolist() == ["true", "false", "", "false"]  # without an answer nobody knows
    # What reads predictions agrees with the table.
    read = read_predictions(tmp_path)
    assert read is not None and read["index"].tolist() == [0, 1, 3]
    assert answers_of([read]).tolist() == [[True, False, False]] and read["closed"].tolist() == [True, False, False]


@pytest.mark.parametrize("made", [classifier, generator])
def test_the_validation_loss_is_over_what_is_known(made: Callable[[], tuple[Stage, VQABatch]], tmp_path: Path) -> None:
    module, batch = made()

    def loss(batches: list[VQABatch]) -> float:
        trainer = quiet_trainer(tmp_path, limit_val_batches=1.0)
        return float(trainer.validate(module, datamodule=Read(batches), verbose=False)[0]["validation/loss"])

    nothing = judged_by(batch, [()] * 4)
    assert loss([nothing, batch, nothing]) == pytest.approx(loss([batch]))
    half = judged_by(batch, [batch.accepted[0], (), batch.accepted[2], ()])
    with torch.no_grad():
        if isinstance(module, VQAGenerator):
            wanted = -module.log_likelihood(batch, module(batch))[[0, 2]].mean()
        else:
            wanted = answer_loss(module(batch)[[0, 2]], module.labels(batch)[[0, 2]])
    assert loss([half]) == pytest.approx(float(wanted), rel=1e-5)


def module_and_data(kind: str) -> tuple[LightningModule, Batches | Labelled]:
    if kind == "classes":
        torch.manual_seed(0)
        module = Classification(ENCODER, OPTIMIZER, classes=list(CLASSES))
        return module, Labelled(replace(labelled_batch(4), labels=("",) * 4))
    made, batch = classifier() if kind == "answers" else generator()
    return made, Read([judged_by(batch, [()] * 4)])


@pytest.mark.parametrize("kind", ["answers", "written answers", "classes"])
def test_where_nothing_is_known_predictions_stand_in_the_place_of_a_table(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, data = module_and_data(kind)
    trainer = quiet_trainer(tmp_path, ResultsTable(), PredictionWriter())
    assert trainer.test(module, datamodule=data, verbose=False) == [{}]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rows"] == [] and "predictions.csv stands in the place of a table" in results["notes"][-1]
    assert "predictions.csv stands in the place of a table" in " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    if isinstance(data, Read):  # which says of each question whether it is closed
        assert table["closed"].tolist() == list(map(bool, data.batches[0].closed))
    assert len(table) == 4 and set(table["correct"]) == {""} and read_predictions(tmp_path) is None
    with pytest.raises(UserError, match="there is nothing to compare"):
        read_runs([tmp_path])


def test_the_likeliest_names_come_first_and_of_equal_ones_the_first() -> None:
    scores = torch.tensor([[0.0, 2.0, 2.0, -1.0], [30.0, 31.0, 0.0, 0.0]])
    found = ranked(("a", "b", "c", "d"), scores, scores.sigmoid(), 3)
    assert [[one.name for one in row] for row in found] == [["b", "c", "a"], ["b", "a", "c"]]
    assert found[0][2].probability == 0.5 and found[1][0].probability == pytest.approx(1)


@pytest.mark.parametrize("made", [classifier, generator])
def test_rows_hold_the_likeliest_answers_with_their_probabilities(
    made: Callable[[], tuple[Stage, VQABatch]], tmp_path: Path
) -> None:
    module, batch = made()
    for row in quiet_trainer(tmp_path).predict(module, datamodule=Read([batch]))[0]:  # type: ignore[index]
        assert (row["answer_1"], row["probability_1"]) == (row["answer"], row["confidence"])
        sure = [row[name] for name in row if name.startswith("probability_")]
        assert sure == sorted(sure, reverse=True) and len(sure) == min(
            5, len(module.answers), 3 if made is generator else 5
        )
        assert len({row[name] for name in row if name.startswith("answer_")}) == len(sure)
