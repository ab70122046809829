"""Runs side by side: seeds of one configuration together, pairs question by question, results of the past too."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console

from umd.commands.compare import as_tables, main, paired, paired_table, read_runs
from umd.files import UserError
from umd.metrics.intervals import image_interval, mean_interval
from umd.metrics.paired import holm, mcnemar, sign_flip_test
from umd.metrics.runs import configurations

QUESTIONS = 48
IMAGES = np.array([f"{place // 4}.jpg" for place in range(QUESTIONS)])
CLOSED = np.arange(QUESTIONS) % 2 == 0


def answers(share: float, seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(QUESTIONS) < share


def write(
    folder: Path,
    correct: NDArray[np.bool_],
    *,
    seed: int | None = 0,
    settings: str = "s",
    checkpoint: str = "checkpoints/best.ckpt",
    behind: str | None = None,
    ids: str = "q",
    groups: int = 1,
    **more: Any,  # noqa: ANN401
) -> Path:
    """What a test leaves; without `seed` as it was left before there was a schema."""
    folder.mkdir(parents=True)
    named = {"open": ~CLOSED, "closed": CLOSED, "overall": CLOSED | True}
    rows = [
        {"group": name + suffix, "questions": int(members.sum()), "accuracy": 100 * float(correct[members].mean())}
        | {"interval_low": 10.0, "interval_high": 90.0}
        | ({} if seed is None else {"image_interval_low": 5.0, "image_interval_high": 95.0})
        for suffix in ["", ", generated", ", a third way"][:groups]
        for name, members in named.items()
    ]
    report: dict[str, Any] = {"title": "VQA-RAD, protocol clean", "notes": [], "columns": list(rows[0]), "rows": rows}
    if seed is not None:
        training = {"settings": settings, "seed": seed}
        report |= {
            "schema": 1,
            "training": training,
            "init_from": [] if behind is None else [{"settings": behind, "seed": 0}],
            "checkpoint": {"path": checkpoint, "sha256": f"{folder}", "step": 1, "epoch": 0},
            "test": {"data_class": "VQARAD", "data": "VQA-RAD", "protocol": "clean", "facts": {}},
            "limits": None,
        }
    (folder / "results.json").write_text(json.dumps(report | more))
    table = pd.DataFrame(
        {
            "index": range(QUESTIONS),
            "question_id": [f"{ids}{place}" for place in range(QUESTIONS)],
            "image": IMAGES,
            "answer": "n/a",
            "correct": correct,
            "closed": CLOSED,
            "has_twin": False,
        }
    )
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


def shown(*folders: Path, width: int = 100) -> str:
    of = configurations(read_runs(folders))
    console = Console(width=width, record=True, file=io.StringIO())
    for table in as_tables(of, width):
        console.print(table)
    return console.export_text()


def test_runs_that_differ_in_their_seed_alone_are_one_configuration(tmp_path: Path) -> None:
    joint = [write(tmp_path / f"joint{seed}", answers(0.7, seed), seed=seed) for seed in range(3)]
    others = [
        write(tmp_path / "text", answers(0.4, 3), settings="t"),
        write(tmp_path / "calibrated", answers(0.4, 3), behind="c"),
        write(tmp_path / "last", answers(0.4, 3), checkpoint="../checkpoints/last.ckpt"),
        write(tmp_path / "partial", answers(0.4, 3), limits={"batches": 1, "of": 2}),
        write(tmp_path / "old", answers(0.4, 3), seed=None),
        write(tmp_path / "older", answers(0.4, 3), seed=None),
    ]
    of = configurations(read_runs([*joint, *others]))
    assert [(one.label, len(one.runs)) for one in of] == [("joint*", 3), *((path.name, 1) for path in others)]


def test_two_runs_of_one_seed_are_no_two_seeds(tmp_path: Path) -> None:
    runs = [write(tmp_path / name, answers(0.7, 0)) for name in ("a", "b")]
    assert [one.label for one in configurations(read_runs(runs))] == ["a", "b"]


def test_a_name_that_two_configurations_share_is_spelled_out(tmp_path: Path) -> None:
    runs = [write(tmp_path / f"x{seed}", answers(0.7, seed), seed=seed) for seed in (0, 1)]
    runs += [write(tmp_path / f"x{seed + 2}", answers(0.7, seed), seed=seed, settings="t") for seed in (0, 1)]
    assert [one.label for one in configurations(read_runs(runs))] == ["x*", "x2, x3"]


def test_seeds_have_mean_deviation_and_both_intervals_of_the_mean(tmp_path: Path) -> None:
    correct = np.stack([answers(0.7, seed) for seed in range(3)])
    (one,) = configurations(
        read_runs([write(tmp_path / f"joint{seed}", correct[seed], seed=seed) for seed in range(3)])
    )
    for name, members in {"open": ~CLOSED, "closed": CLOSED, "overall": CLOSED | True}.items():
        metric, shares = one.measured()[name], 100 * correct[:, members].mean(axis=1)
        assert metric.mean == pytest.approx(shares.mean())
        assert metric.std == pytest.approx(shares.std(ddof=1))
        assert (metric.low, metric.high) == mean_interval(correct.mean(axis=0)[members])
        assert (metric.image_low, metric.image_high) == image_interval(correct.mean(axis=0)[members], IMAGES[members])
    text = shown(*(tmp_path / f"joint{seed}" for seed in range(3)))
    overall = one.measured()["overall"]
    assert "joint* (3)" in text
    assert f"{overall.mean:.1f} ± {overall.std:.1f}" in text
    assert f"[{overall.low:.1f}, {overall.high:.1f}]" in text
    assert f"[{overall.image_low:.1f}, {overall.image_high:.1f}]" in text


def test_pairs_are_compared_over_questions_and_over_images_and_corrected(tmp_path: Path) -> None:
    a, b, c = answers(0.8, 0), answers(0.5, 1), answers(0.3, 2)
    runs = [write(tmp_path / name, correct, settings=name) for name, correct in (("a", a), ("b", b), ("c", c))]
    table = paired(configurations(read_runs(runs)))
    questions, images = (table[table["over"] == over].reset_index() for over in ("questions", "images"))
    expected = [(a, b), (a, c), (b, c)]
    assert questions["p"].tolist() == pytest.approx([mcnemar(*pair) for pair in expected])
    assert images["p"].tolist() == pytest.approx(
        [sign_flip_test(one.astype(int) - other, IMAGES) for one, other in expected]
    )
    for rows in (questions, images):
        assert rows["p_holm"].tolist() == pytest.approx(holm(rows["p"].tolist()))
        assert rows["difference"].tolist() == pytest.approx([100 * (x.mean() - y.mean()) for x, y in expected])
    assert (images["low"][0], images["high"][0]) == image_interval(a.astype(float) - b, IMAGES)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(paired_table(table))
    text = console.export_text()
    assert "a against b" in text and "p (Holm)" in text and "…" not in text


def test_runs_on_other_questions_or_without_predictions_are_not_paired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", answers(0.7, 0))
    other = write(tmp_path / "other", answers(0.7, 0), ids="r", settings="t")
    without = write(tmp_path / "without", answers(0.7, 0), settings="u")
    (without / "predictions.csv").unlink()
    assert paired(configurations(read_runs([one, other, without]))).empty
    main([str(one), str(without)])
    assert "No paired comparison" in capsys.readouterr().out


def test_predictions_that_are_not_the_reports_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", answers(0.7, 0))
    report = json.loads((folder / "results.json").read_text())
    report["rows"][2]["accuracy"] += 1
    (folder / "results.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match=r"one: predictions.csv and results.json disagree on 'overall'"):
        shown(folder)


def test_results_of_the_past_stand_beside_those_of_today(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, old = write(tmp_path / "new", answers(0.7, 0)), write(tmp_path / "old", answers(0.6, 1), seed=None)
    (old / "predictions.csv").unlink()
    text = shown(new, old)
    assert "[10.0, 90.0]" in text, "of the past there is the interval over questions alone"
    main([str(new), str(old), "--csv", str(tmp_path / "rows.csv")])
    out = capsys.readouterr().out
    assert "old: VQA-RAD, protocol clean (of the test; training protocol unknown)" in out.replace("\n", " ")
    assert "new: VQA-RAD, protocol clean\n" in out
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows.groupby("run")["image_interval_low"].count().to_dict() == {"new": 3, "old": 0}


@pytest.mark.parametrize("width", [60, 80, 100])
def test_many_groups_are_shown_in_several_tables_and_none_is_cut(tmp_path: Path, width: int) -> None:
    text = shown(write(tmp_path / "one", answers(0.7, 0), groups=3), width=width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for name in ("open", "closed", "overall"):
        for way in ("", ", generated", ", a third way"):
            assert name + way in text
