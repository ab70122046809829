"""What a test says: the heading of its report, and each sample's row of plain values for `predictions.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umd.batch import VQABatch
from umd.protocols import HasDescription

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


def report_heading(data: object) -> tuple[str, list[str]]:
    """Title and first notes of a test report: the data, its protocol, and what else it says of itself."""
    facts = dict(data.description) if isinstance(data, HasDescription) else {}
    name, protocol = facts.pop("data", "unnamed data"), facts.pop("protocol", None)
    return f"{name}, protocol {protocol}" if protocol else name, [f"{key}: {value}" for key, value in facts.items()]
