from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from umd.metrics.intervals import bootstrap_interval, image_interval
from umd.metrics.vqa import VQA_REPORT_COLUMNS, VQAAccuracy, vqa_report

Columns = dict[str, torch.Tensor]


def random_questions(count: int) -> Columns:
    flags = torch.rand(4, count, generator=torch.Generator().manual_seed(0)) < 0.6
    return {
        "index": torch.arange(count),
        "image": torch.arange(count) // 2,
        "correct": flags[0],
        "closed": flags[1],
        "has_twin": flags[2],
        "answerable": flags[3] | flags[0],
    }


def take(columns: Columns, places: list[int]) -> Columns:
    return {name: column[places] for name, column in columns.items()}


def hand_counted() -> Columns:
    # 0 and 1 are open, 2 to 5 closed; 1 and 3 have a twin; 0 and 4 have answers beyond the vocabulary.
    return {
        "index": torch.tensor([5, 4, 3, 2, 1, 0]),
        "image": torch.tensor([7, 7, 3, 3, 9, 9]),
        "correct": torch.tensor([True, False, True, True, True, False]),
        "closed": torch.tensor([True, True, True, True, False, False]),
        "has_twin": torch.tensor([False, False, True, False, True, False]),
        "answerable": torch.tensor([True, False, True, True, True, False]),
    }


def test_interval_agrees_with_resampling_the_questions() -> None:
    rng = np.random.default_rng(1)
    correct = rng.random(120) < 0.7
    means = [100 * rng.choice(correct, size=len(correct)).mean() for _ in range(20_000)]
    expected = np.quantile(means, [0.05, 0.95])
    interval = bootstrap_interval(correct, confidence=0.9, resamples=20_000)
    # The means lie on a grid of 100 / 120; an estimate of a quantile may fall one step beside.
    assert np.abs(np.array(interval) - expected).max() <= 100 / 120 + 1e-9


def test_interval_approaches_the_normal_one_of_a_large_sample() -> None:
    correct = torch.zeros(40_000, dtype=torch.bool)
    correct[:10_000] = True
    half = 1.959964 * 100 * math.sqrt(0.25 * 0.75 / 40_000)
    low, high = bootstrap_interval(correct, resamples=50_000)
    assert low == pytest.approx(25 - half, abs=0.02)
    assert high == pytest.approx(25 + half, abs=0.02)


def test_interval_covers_the_true_accuracy_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    intervals = [bootstrap_interval(rng.random(300) < 0.6, seed=trial) for trial in range(400)]
    # 400 trials at 95 % have a standard deviation of 1.1 points.
    assert 0.91 <= sum(low <= 60 <= high for low, high in intervals) / 400 <= 0.985


def test_interval_takes_lists_tensors_and_arrays_and_repeats_itself() -> None:
    values = [1, 0, 1, 1, 0, 1, 0, 1]
    interval = bootstrap_interval(values)
    assert interval == bootstrap_interval(torch.tensor(values).bool()) == bootstrap_interval(np.array(values))
    assert bootstrap_interval([True] * 5) == (100.0, 100.0)
    assert bootstrap_interval([False]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("correct", "arguments", "message"),
    [
        ([], {}, "at least one question"),
        ([0.5, 1.0], {}, "only 0 and 1"),
        ([1, 0], {"confidence": 1.0}, "confidence"),
        ([1, 0], {"resamples": 0}, "resamples"),
    ],
)
def test_interval_refuses(correct: list[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(correct, **arguments)


def test_report_of_a_hand_counted_example() -> None:
    rows = {row["group"]: row for row in vqa_report(**hand_counted())}
    assert list(rows) == ["open", "closed", "overall", "twin-free"]
    assert all(tuple(row) == VQA_REPORT_COLUMNS for row in rows.values())
    keys = ("questions", "accuracy", "ceiling", "share_of_ceiling")
    assert [rows["open"][key] for key in keys] == [2, 50, 50, 100]
    assert [rows["closed"][key] for key in keys] == [4, 75, 75, 100]
    assert [rows["overall"][key] for key in keys] == pytest.approx([6, 400 / 6, 400 / 6, 100])
    assert [rows["twin-free"][key] for key in keys] == [4, 50, 50, 100]
    interval = (rows["closed"]["interval_low"], rows["closed"]["interval_high"])
    assert interval == bootstrap_interval([1, 1, 1, 0])
    over_images = (rows["closed"]["image_interval_low"], rows["closed"]["image_interval_high"])
    assert over_images == image_interval([1, 1, 1, 0], [3, 3, 7, 7]) == (50, 100)


def test_share_of_ceiling_is_undefined_at_a_ceiling_of_nothing_and_passes_a_hundred() -> None:
    columns = hand_counted()
    columns["answerable"] = columns["closed"] & (columns["index"] == 5)
    rows = {row["group"]: row for row in vqa_report(**columns)}
    assert rows["open"]["ceiling"] == 0
    assert rows["open"]["share_of_ceiling"] is None
    assert rows["closed"]["share_of_ceiling"] == 300


def test_without_twins_there_is_no_row_and_no_key_for_them() -> None:
    columns = random_questions(20)
    columns["has_twin"] = torch.zeros(20, dtype=torch.bool)
    assert [row["group"] for row in vqa_report(**columns)] == ["open", "closed", "overall"]
    metric = VQAAccuracy()
    metric.update(**columns)
    assert set(metric.compute()) == {"open", "closed", "overall"}


@pytest.mark.parametrize("closed", [True, False])
def test_an_empty_group_is_none_in_the_report_and_absent_from_the_scalars(closed: bool) -> None:
    empty, present = ("open", "closed") if closed else ("closed", "open")
    columns = random_questions(8)
    columns["closed"] = torch.full((8,), closed)
    metric = VQAAccuracy()
    metric.update(**columns)
    scalars = metric.compute()
    assert set(scalars) == {present, "overall", "twin_free"}
    assert all(bool(torch.isfinite(value)) for value in scalars.values())
    row = next(row for row in metric.report() if row["group"] == empty)
    assert row == dict.fromkeys(VQA_REPORT_COLUMNS) | {"group": empty, "questions": 0}


def test_repeated_questions_count_once_and_the_first_answer_holds() -> None:
    columns = random_questions(30)
    metric = VQAAccuracy()
    metric.update(**take(columns, list(range(20))))
    repeated = take(columns, [3, 29, 3, *range(20, 29), 0])
    repeated["correct"] ^= repeated["index"] < 20  # a repetition must not overwrite the first answer
    metric.update(**repeated)
    assert metric.report() == vqa_report(**columns)
    mean = columns["correct"].float().mean() * 100
    assert metric.compute()["overall"].item() == pytest.approx(mean.item())


def test_report_follows_later_updates_resets_and_forward() -> None:
    columns = random_questions(12)
    metric = VQAAccuracy()
    metric.update(**take(columns, [0, 1]))
    assert metric.report()[2]["questions"] == 2
    batch = metric(**take(columns, [2, 3, 4]))
    assert batch["overall"].item() == pytest.approx(columns["correct"][2:5].float().mean().item() * 100)
    assert metric.report()[2]["questions"] == 5
    metric.reset()
    metric.update(**take(columns, [7]))
    assert metric.report()[2]["questions"] == 1


def test_nothing_seen_gives_no_numbers() -> None:
    metric = VQAAccuracy()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute() == {}
        assert metric.report() == []


def test_update_refuses_columns_of_different_lengths() -> None:
    columns = random_questions(4)
    columns["closed"] = columns["closed"][:3]
    with pytest.raises(ValueError, match=r"\(3,\)"):
        VQAAccuracy().update(**columns)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    columns = random_questions(7)
    uneven, one_sided = VQAAccuracy(), VQAAccuracy()
    # As a distributed sampler deals 7 questions, in batches of two; rank 1 ends with question 0 again.
    for places in ([0, 2], [4, 6]) if rank == 0 else ([1, 3], [5, 0]):
        uneven.update(**take(columns, places))
    if rank == 0:
        one_sided.update(**columns)
    uneven.compute()
    reports = [one_sided.report()]
    if rank == 0:
        reports.append(uneven.report())  # after compute, a rank can ask alone
    Path(folder, f"{rank}.json").write_text(json.dumps(reports))
    dist.destroy_process_group()


def test_two_ranks_report_what_one_would(tmp_path: Path) -> None:
    spawn(_rank, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    expected = vqa_report(**random_questions(7))
    assert json.loads((tmp_path / "0.json").read_text()) == [expected, expected]
    assert json.loads((tmp_path / "1.json").read_text()) == [expected]
