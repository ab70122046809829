"""What a test says: the heading of its report, and each sample's row of plain values for `predictions.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from umd.batch import VQABatch
from umd.modules.lineage import heading
from umd.modules.ranked import Ranked, ranked_columns
from umd.protocols import HasDescription, HasTestGroups, HasValidation, Training

Row = dict[str, Any]

NOTHING_TO_COMPARE = "The data does not say what is true here: predictions.csv stands in the place of a table."
"""The note of a test of samples without answers or classes."""


def as_rows(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    """One dictionary a sample from one sequence a column.

    Raises:
        ValueError: the columns are not of one length.
    """
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def judged(given: Sequence[str], accepted: Sequence[Sequence[str]]) -> list[bool | None]:
    """Whether each answer is one of those that count as right; None where none is known."""
    return [answer in right if right else None for answer, right in zip(given, accepted, strict=True)]


def with_truth(truths: Sequence[object], *columns: Tensor) -> tuple[Tensor, ...]:
    """The rows of each column whose truth is known; a truth that is empty is not.

    Args:
        truths: one a row: an answer, a class, or all accepted answers.
        *columns: tensors of as many rows.
    """
    known = [bool(truth) for truth in truths]
    if all(known):
        return columns
    return tuple(column[torch.tensor(known, device=column.device)] for column in columns)


def question_rows(
    batch: VQABatch,
    given: Mapping[str, Sequence[Any]],
    judged: Mapping[str, Sequence[bool | None]],
    ranked: Sequence[Sequence[Ranked]],
) -> list[Row]:
    """One row a question: what was asked, what was answered, what is true, whether it is right, of which kind it is.

    Args:
        batch: the questions.
        given: columns of what the model answered and how sure it was, a value a question.
        judged: columns that tell whether it was right, None where nobody knows.
        ranked: the likeliest answers of each question.

    Raises:
        ValueError: a column does not have a value for each question.
    """
    return as_rows(
        {
            "index": batch.index.tolist(),
            "question_id": batch.sample_ids,
            "image": batch.image_names,
            "question": batch.texts,
            **given,
            "ground_truth": batch.answers,
            "published_answer": batch.published_answers,
            "also_accepted": [" | ".join(right[1:]) for right in batch.accepted],
            **judged,
            "closed": _closed(batch),
            "has_twin": batch.has_twin.tolist(),
            "question_type": batch.question_types,
            **ranked_columns("answer", ranked),
        }
    )


def _closed(batch: VQABatch) -> list[bool | None]:
    """Whether each question is closed; None where only an answer would tell, and none is known."""
    closed: list[bool] = batch.closed.tolist()
    return [
        None if by_answer and not right else one
        for one, by_answer, right in zip(closed, batch.closed_by_answer, batch.accepted, strict=True)
    ]


def report_heading(data: object, lineage: Sequence[Training]) -> tuple[str, list[str]]:
    """Title and first notes of a test's table: the data, the protocol of the training, what else both say.

    Args:
        data: the data module of the test.
        lineage: the trainings behind the tested weights, the last one first.
    """
    return heading(lineage, data.description if isinstance(data, HasDescription) else {})


def validates_on_test(data: object) -> bool:
    """Whether the data's validation split is its test split, so that nothing may be fitted on it."""
    return isinstance(data, HasValidation) and data.validates_on_test


def test_groups(data: object) -> Mapping[str, Sequence[bool]]:
    """The groups of test questions that the data tells apart beside those of every report."""
    return data.test_groups() if isinstance(data, HasTestGroups) else {}
