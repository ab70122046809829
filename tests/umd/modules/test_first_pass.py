"""Retrieval's own first pass: what it learns, what it leaves alone, and what re-ranking by it costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks import ModalityCoordination, WeightPerturbation
from tests.configs.test_configs import fit
from tests.synthetic import ENCODER, OPTIMIZER, quiet_trainer
from tests.umd.modules.test_retrieval import DROPLESS, Pairs, module, pairs, plain_ranks, plain_scores, seen_scores
from umd.commands.train import run
from umd.files import UserError
from umd.losses.first_pass import TEMPERATURE, first_pass_loss
from umd.modules import Retrieval

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]
APART = {"image_contrast.weight", "text_contrast.weight"}


def weights_after_training(folder: Path, clip: float | None, **settings: Any) -> tuple[dict[str, Tensor], Retrieval]:  # noqa: ANN401
    """All weights after two epochs with dropout and both papers' callbacks, from one seed."""
    torch.manual_seed(0)
    model = Retrieval(ENCODER, replace(OPTIMIZER, lr=1e-2), **settings)
    callbacks = ModalityCoordination(), WeightPerturbation()
    trainer = quiet_trainer(folder, *callbacks, max_epochs=2, gradient_clip_val=clip)
    trainer.fit(model, datamodule=Pairs([pairs(6, negatives=2), pairs(4, negatives=2, seed=7)]))
    return model.state_dict(), model


@pytest.mark.parametrize("clip", [None, 0.05])
def test_all_other_weights_come_out_the_same_bit_for_bit(clip: float | None, tmp_path: Path) -> None:
    without, _ = weights_after_training(tmp_path, clip)
    trained, model = weights_after_training(tmp_path, clip, train_first_pass=True, contrast_width=6)
    assert trained.keys() - without.keys() == APART
    assert all(torch.equal(trained[name], value) for name, value in without.items())
    torch.manual_seed(0)
    start = Retrieval(ENCODER, train_first_pass=True, contrast_width=6).state_dict()
    assert all((trained[name] - start[name]).abs().max() > 1e-4 for name in APART)
    assert "train/first_pass" in model.trainer.callback_metrics


def test_the_loss_by_hand() -> None:
    """Pairs 0 and 2 have one image: either's text is right for both."""
    image, text = torch.randn(2, 3, 5, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    cosine = [[torch.cosine_similarity(i, t, dim=0).item() / TEMPERATURE for t in text] for i in image]
    surprise = []
    for rows in (cosine, [list(column) for column in zip(*cosine, strict=True)]):
        for row, values in enumerate(rows):
            right = [0, 2] if row in (0, 2) else [row]
            logs = torch.tensor(values).log_softmax(0)
            surprise.append(-sum(logs[place].item() for place in right) / len(right))
    loss = first_pass_loss(image, text, ["a", "b", "a"], ["x", "y", "z"])
    assert loss.item() == pytest.approx(sum(surprise) / 6, rel=1e-5)


def test_pairs_learnt_by_heart_survive_from_a_checkpoint(tmp_path: Path) -> None:
    """Of 32 pairs under random encoders that stand still, 3 are kept: four times as many survive as by chance."""
    torch.manual_seed(0)
    data = Pairs([pairs(32, negatives=1)])
    model = Retrieval(DROPLESS, replace(OPTIMIZER, lr=1e-30, weight_decay=0.0), train_first_pass=True)
    trainer = quiet_trainer(tmp_path, max_steps=300)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "retrieval.ckpt")
    again = Retrieval.load_from_checkpoint(tmp_path / "retrieval.ckpt", weights_only=True, rerank=3)
    logged = quiet_trainer(tmp_path).test(again, datamodule=data, verbose=False)[0]
    assert logged["test/image_to_text_survived"] >= 100 * 4 * 3 / 32
    assert logged["test/text_to_image_survived"] >= 100 * 4 * 3 / 32


def test_with_all_candidates_kept_nothing_changes(tmp_path: Path) -> None:
    batches = [pairs(4), pairs(3, first=4, seed=5)]
    rows = []
    for settings in ({}, {"rerank": 7, "rerank_check": 7, "train_first_pass": True}):
        model = module(**settings)
        logged = quiet_trainer(tmp_path).test(model, datamodule=Pairs(batches), verbose=False)[0]
        rows.append(model.test_report()["rows"])
    assert rows[0] == rows[1]
    assert {value for name, value in logged.items() if name.endswith("_lost")} == {0}


@pytest.mark.parametrize("checked", [4, 50])
def test_the_loss_of_recall_is_that_of_ranking_among_everything(checked: int, tmp_path: Path) -> None:
    batches = [pairs(8), pairs(6, first=8, seed=5)]
    model = module(rerank=3, contrast_width=6, rerank_check=checked)
    exact = plain_scores(model.double(), batches)
    seen = seen_scores(model)
    logged = quiet_trainer(tmp_path).test(model, datamodule=Pairs(batches), verbose=False)[0]
    drawn = seen[0].checked.tolist()
    assert len(set(drawn)) == len(drawn) == min(checked, 14)
    note = model.test_report()["notes"][-1]
    assert note.startswith(f"{len(drawn)} queries each way")
    lost = []
    for direction, scores in (("text_to_image", exact.T), ("image_to_text", exact)):
        everything, kept = plain_ranks(scores.tolist()), seen[0].ranks()[direction].tolist()
        for k in (1, 5, 10):
            before, after = (100 * sum(ranks[m] <= k for m in drawn) / len(drawn) for ranks in (everything, kept))
            assert logged[f"test/{direction}_recall{k}_lost"] == pytest.approx(before - after, abs=1e-4)
            said = f"{direction.replace('_', ' ')} R@{k} {after:.1f} for {before:.1f} ({after - before:+.1f})"
            assert said in note
            lost.append(before - after)
            if len(drawn) == 14:
                assert before - after <= 100 - logged[f"test/{direction}_survived"] + 1e-4
    assert max(lost) > 0 or checked == 4
    assert logged["test/mean_recall_lost"] == pytest.approx(sum(lost) / 6, abs=1e-4)


def test_a_check_without_a_first_pass_is_refused() -> None:
    with pytest.raises(UserError, match="rerank_check is 5, but rerank is null"):
        Retrieval(ENCODER, rerank_check=5)


def test_the_command_line_says_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"--data.root={tmp_path / 'data'}", "--data.size=60"
    last = fit(tmp_path / "runs", ["retrieval.yaml"], *data, "--model.train_first_pass=true")
    capsys.readouterr()
    given = [f"--ckpt_path={last}", "--model.rerank=2", "--model.rerank_check=3", f"--runs={tmp_path / 'tests'}"]
    run(["test", *given, *QUIET])
    said = " ".join(capsys.readouterr().out.split())
    assert "First pass down to 2 candidates; true pairs that survive it: text to image" in said
    assert "3 queries each way, re-ranked for scored against everything: text to image R@1" in said
    (written,) = (tmp_path / "tests").rglob("results.json")
    assert any("it loses at most" in note for note in json.loads(written.read_text())["notes"])
