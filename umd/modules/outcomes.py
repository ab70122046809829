"""What a test says: the heading of its report, and each sample's row of plain values for `predictions.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umd.batch import VQABatch
from umd.modules.lineage import heading
from umd.protocols import HasDescription, Training

Row = dict[str, Any]


def as_rows(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    """One dictionary a sample from one sequence a column.

    Raises:
        ValueError: the columns are not of one length.
    """
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def question_rows(
    batch: VQABatch, given: Mapping[str, Sequence[Any]], judged: Mapping[str, Sequence[bool]]
) -> list[Row]:
    """One row a question: what was asked, what was answered, what is true, whether it is right, of which kind it is.

    Args:
        batch: the questions.
        given: columns of what the model answered and how sure it was, a value a question.
        judged: columns that tell whether it was right.

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
            **judged,
            "closed": batch.closed.tolist(),
            "has_twin": batch.has_twin.tolist(),
            "question_type": batch.question_types,
        }
    )


def report_heading(data: object, lineage: Sequence[Training]) -> tuple[str, list[str]]:
    """Title and first notes of a test's table: the data, the protocol of the training, what else both say.

    Args:
        data: the data module of the test.
        lineage: the trainings behind the tested weights, the last one first.
    """
    return heading(lineage, data.description if isinstance(data, HasDescription) else {})
