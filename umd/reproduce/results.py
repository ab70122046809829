"""From the files that finished steps left to numbers: one measurement for each row, benchmark and metric."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd.files import UserError
from umd.metrics.paired import Comparison, compare
from umd.metrics.predictions import (
    answers_of,
    check_agreement,
    images_of,
    question_groups,
    read_predictions,
    read_table,
    same_samples,
)
from umd.metrics.seeds import Measured, measured, reported
from umd.reproduce.steps import Step, Workspace


class MissingResultError(UserError):
    """A step has no test result."""


UNSEEN = "unseen image"
"""The group of test questions whose image is not among the training images."""


@dataclass(frozen=True)
class Result:
    """What a row's trainings over several seeds came to on one benchmark.

    Attributes:
        seeds: how many.
        metrics: by name, in the order of the reports.
        correct: (seeds, questions) bool, whether each test question is answered; None for retrieval.
        images: the name of each test question's image, where that is known.
    """

    seeds: int
    metrics: dict[str, Measured]
    correct: NDArray[np.bool_] | None
    images: NDArray[np.str_] | None = None


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
    tables = [read_predictions(folder) for folder in folders]
    if any(table is None for table in tables):
        return Result(len(steps), _reported(reports), None)
    predictions = [table for table in tables if table is not None]
    if not same_samples(predictions):
        raise UserError(f"the seeds of {steps[0]} were tested on different samples")
    correct = answers_of(predictions)
    images = images_of(predictions[0])
    if "closed" not in predictions[0]:
        return Result(len(steps), _reported(reports), correct, images)
    groups = _groups(predictions[0], questions)
    ceilings = {name: row["ceiling"] for name, row in reports[0].items()}
    metrics = _by_group(correct, images, groups, ceilings)
    for seed, report in enumerate(reports):
        for name, row in report.items():
            if name in groups:
                check_agreement(folders[seed], row["value"], correct[seed, groups[name]], name)
    return Result(len(steps), metrics, correct, images)


def most_frequent(questions: pd.DataFrame) -> Result:
    """How far the most frequent training answer to each type of question goes, or the most frequent class."""
    answer, guess = ("answer", "most_frequent_answer") if "answer" in questions else ("label", "most_frequent_label")
    correct = (questions[answer] == questions[guess]).to_numpy()[None]
    images = images_of(questions)
    if "closed" not in questions:
        return Result(1, {"accuracy": measured(correct, images)}, correct, images)
    groups = _groups(questions, questions)
    answerable = questions["answerable"].to_numpy(dtype=bool)
    ceilings = {name: 100 * float(answerable[members].mean()) for name, members in groups.items()}
    return Result(1, _by_group(correct, images, groups, ceilings), correct, images)


def _groups(asked: pd.DataFrame, questions: pd.DataFrame | None) -> dict[str, NDArray[np.bool_]]:
    """The groups of test questions that a table shows: those of the reports and, where some are, `UNSEEN`.

    Raises:
        UserError: the two tables are not of the same questions.
    """
    groups = question_groups(asked)
    if questions is not None:
        if not same_samples([asked, questions]):
            raise UserError("umd data and the models' tests list different questions: the data has changed")
        unseen = ~questions["image_in_train"].to_numpy(dtype=bool)
        groups |= {UNSEEN: unseen} if 0 < unseen.sum() < len(unseen) else {}
    return groups


def compared(one: Result, other: Result) -> Comparison | None:
    """Whether the first is better than the second; None where their answers are not at hand, or not the same seeds."""
    if one.correct is None or other.correct is None or one.correct.shape != other.correct.shape:
        return None
    return compare(one.correct, other.correct, one.images)


def test_questions(folder: Path) -> pd.DataFrame | None:
    """The test questions or samples that `umd data` wrote; None where it wrote none."""
    name = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["test_file"]
    return read_table(folder / name) if name else None


def _by_group(
    correct: NDArray[np.bool_],
    images: NDArray[np.str_] | None,
    groups: Mapping[str, NDArray[np.bool_]],
    ceilings: Mapping[str, float | None],
) -> dict[str, Measured]:
    """The accuracy on each group of questions."""
    return {
        name: measured(correct[:, members], None if images is None else images[members], ceilings.get(name))
        for name, members in groups.items()
    }


def _reported(reports: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Measured]:
    """Metrics as the reports have them, where the answers themselves are not at hand or do not tell."""
    found = {name: reported([report[name] for report in reports], "value", "count") for name in reports[0]}
    return {name: metric for name, metric in found.items() if metric is not None}


def _report(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of results.json by their name; the first three columns are name, count and value."""
    path = folder / "results.json"
    if not path.is_file():
        raise MissingResultError(f"{path} is missing: the data has no test split, or the test was stopped")
    content = json.loads(path.read_text(encoding="utf-8"))
    name, count, value = content["columns"][:3]
    return {row[name]: {"ceiling": None, **row, "value": row[value], "count": row[count]} for row in content["rows"]}
