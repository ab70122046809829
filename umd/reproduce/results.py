"""From the files that finished steps left to numbers: one measurement for each row, benchmark and metric."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd.files import UserError
from umd.metrics.intervals import bootstrap_interval, mcnemar, mean_interval
from umd.reproduce.steps import Step, Workspace


class MissingResultError(UserError):
    """A step has no test result."""


UNSEEN = "unseen image"
"""The group of test questions whose image is not among the training images."""


@dataclass(frozen=True)
class Measured:
    """One metric over seeds.

    Attributes:
        mean: over seeds, in per cent.
        std: over seeds (sample standard deviation, percentage points); None for a single seed.
        low: lower end of the 95 % bootstrap interval.
        high: its upper end.
        count: questions, samples or queries.
        ceiling: the best that the answer vocabulary allows, in per cent; None where there is none.
    """

    mean: float
    std: float | None
    low: float
    high: float
    count: int
    ceiling: float | None


@dataclass(frozen=True)
class Result:
    """What a row's trainings over several seeds came to on one benchmark.

    Attributes:
        seeds: how many.
        metrics: by name, in the order of the reports.
        correct: (seeds, questions) bool, whether each test question is answered; None for retrieval.
    """

    seeds: int
    metrics: dict[str, Measured]
    correct: NDArray[np.bool_] | None


def read_result(steps: Sequence[Step], workspace: Workspace, questions: pd.DataFrame | None) -> Result:
    """The result of one row on one benchmark.

    Args:
        steps: the same training under each seed; all are done.
        workspace: where they lie.
        questions: what `umd data` says of the test questions, for groups that the models do not report.

    Raises:
        MissingResultError: a step has no test result, as where the data has no test split.
        UserError: a report and the predictions beside it disagree, or a seed answered other questions.
    """
    folders = [workspace.folder(step) for step in steps]
    reports = [_report(folder) for folder in folders]
    tables = [_predictions(folder) for folder in folders]
    if any(table is None for table in tables):
        return Result(len(steps), _reported(reports), None)
    predictions = [table for table in tables if table is not None]
    ids = predictions[0].iloc[:, 1].tolist()
    if any(table.iloc[:, 1].tolist() != ids for table in predictions):
        raise UserError(f"the seeds of {steps[0]} were tested on different samples")
    correct = np.stack([table["correct"].to_numpy(dtype=bool) for table in predictions])
    if "closed" not in predictions[0]:
        return Result(len(steps), _reported(reports), correct)
    groups = question_groups(predictions[0], questions)
    metrics = {name: _measured(correct[:, members]) for name, members in groups.items()}
    for seed, report in enumerate(reports):
        for name, row in report.items():
            if name in groups and abs(row["value"] - 100 * correct[seed, groups[name]].mean()) > 1e-6:
                raise UserError(f"{folders[seed]}: predictions.csv and results.json disagree on '{name}'")
    ceilings = {name: row["ceiling"] for name, row in reports[0].items()}
    return Result(
        len(steps),
        {name: _with_ceiling(value, ceilings.get(name)) for name, value in metrics.items()},
        correct,
    )


def most_frequent(questions: pd.DataFrame) -> Result:
    """How far the most frequent training answer to each type of question goes, or the most frequent class."""
    answer, guess = ("answer", "most_frequent_answer") if "answer" in questions else ("label", "most_frequent_label")
    correct = (questions[answer] == questions[guess]).to_numpy()[None]
    if "closed" not in questions:
        return Result(1, {"accuracy": _measured(correct)}, correct)
    groups = question_groups(questions, questions)
    answerable = questions["answerable"].to_numpy(dtype=bool)
    return Result(
        1,
        {
            name: _with_ceiling(_measured(correct[:, members]), 100 * float(answerable[members].mean()))
            for name, members in groups.items()
        },
        correct,
    )


def question_groups(asked: pd.DataFrame, questions: pd.DataFrame | None) -> dict[str, NDArray[np.bool_]]:
    """The groups of test questions that a table shows, as members by position in the split.

    "twin-free" and "unseen image" are there only where some questions belong to them and some do not.

    Raises:
        UserError: the two tables are not of the same questions.
    """
    closed = asked["closed"].to_numpy(dtype=bool)
    groups = {"open": ~closed, "closed": closed, "overall": np.ones(len(closed), dtype=bool)}
    twin_free = ~asked["has_twin"].to_numpy(dtype=bool)
    further = {"twin-free": twin_free}
    if questions is not None:
        if questions["question_id"].astype(str).tolist() != asked["question_id"].astype(str).tolist():
            raise UserError("umd data and the models' tests list different questions: the data has changed")
        further[UNSEEN] = ~questions["image_in_train"].to_numpy(dtype=bool)
    groups |= {name: members for name, members in further.items() if 0 < members.sum() < len(members)}
    return {name: members for name, members in groups.items() if members.any()}


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same test questions.

    Attributes:
        difference: first minus second, mean over seeds, percentage points.
        low: lower end of its 95 % paired bootstrap interval over questions.
        high: its upper end.
        p: exact McNemar test, one value a seed.
    """

    difference: float
    low: float
    high: float
    p: tuple[float, ...]


def compare(one: Result, other: Result) -> Comparison | None:
    """Whether the first is better than the second; None where their answers are not at hand, or not the same seeds."""
    if one.correct is None or other.correct is None or one.correct.shape != other.correct.shape:
        return None
    gained = one.correct.mean(axis=0) - other.correct.mean(axis=0)
    low, high = mean_interval(gained)
    p = tuple(mcnemar(a, b) for a, b in zip(one.correct, other.correct, strict=True))
    return Comparison(100 * float(gained.mean()), low, high, p)


def test_questions(folder: Path) -> pd.DataFrame | None:
    """The test questions or samples that `umd data` wrote; None where it wrote none."""
    name = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["test_file"]
    return _read_csv(folder / name) if name else None


def _measured(correct: NDArray[np.bool_]) -> Measured:
    shares = 100 * correct.mean(axis=1)
    several = len(correct) > 1
    low, high = mean_interval(correct.mean(axis=0)) if several else bootstrap_interval(correct[0])
    std = float(shares.std(ddof=1)) if several else None
    return Measured(float(shares.mean()), std, low, high, correct.shape[1], None)


def _with_ceiling(value: Measured, ceiling: float | None) -> Measured:
    return Measured(value.mean, value.std, value.low, value.high, value.count, ceiling)


def _reported(reports: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Measured]:
    """Metrics as the reports have them; of several seeds the mean of both ends of the intervals."""
    metrics = {}
    for name in reports[0]:
        rows = [report[name] for report in reports]
        if any(row["value"] is None for row in rows):
            continue
        values = np.array([row["value"] for row in rows])
        std = float(values.std(ddof=1)) if len(rows) > 1 else None
        low, high = (float(np.mean([row[end] for row in rows])) for end in ("interval_low", "interval_high"))
        metrics[name] = Measured(float(values.mean()), std, low, high, rows[0]["count"], None)
    return metrics


def _report(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of results.json by their name; the first three columns are name, count and value."""
    path = folder / "results.json"
    if not path.is_file():
        raise MissingResultError(f"{path} is missing: the data has no test split, or the test was stopped")
    content = json.loads(path.read_text(encoding="utf-8"))
    name, count, value = content["columns"][:3]
    return {
        row[name]: {"value": row[value], "count": row[count], "ceiling": row.get("ceiling")}
        | {end: row[end] for end in ("interval_low", "interval_high")}
        for row in content["rows"]
    }


def _predictions(folder: Path) -> pd.DataFrame | None:
    path = folder / "predictions.csv"
    if not path.is_file():
        return None
    table = _read_csv(path)
    return table if "correct" in table else None


def _read_csv(path: Path) -> pd.DataFrame:
    """A table of texts as they are: an answer may well be "n/a"."""
    return pd.read_csv(path, keep_default_na=False)
