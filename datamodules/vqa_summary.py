"""What the summary of a data set of questions adds: ceilings, what can be said without looking, the test questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from datamodules.answers import answer_vocabulary, ceiling
from datamodules.baselines import MostFrequentAnswer
from datamodules.questions import VQARecord
from datamodules.records import Split
from datamodules.summary import Summary, per_cent

_MEMBERS: dict[str, Callable[[VQARecord], bool]] = {
    "open": lambda record: not record.closed,
    "closed": lambda record: record.closed,
    "overall": lambda record: True,
    "twin-free": lambda record: not record.has_twin,
}
"""The groups of test questions; the last one where there are twins."""


MOST_FREQUENT = 10
"""How many answers are shown with their counts."""


def add_questions(summary: Summary, splits: Mapping[Split, Sequence[VQARecord]], answers: Sequence[str]) -> None:
    """Adds to the summary of these splits; `answers` is the vocabulary."""
    for split, records in splits.items():
        summary.splits[split] |= {
            "open": sum(not record.closed and _is_known(record) for record in records),
            "closed": sum(record.closed for record in records),
            "with_twin": sum(record.has_twin for record in records),
        }
    summary.facts["answers"] = len(answers)
    summary.tables.append(f"{len(answers):,} answers in the vocabulary")
    counts = {
        split: Counter(record.answer for record in records if record.accepted) for split, records in splits.items()
    }
    of_train = counts.get("train") or next(iter(counts.values()))
    most = sorted(of_train, key=lambda answer: (-of_train[answer], answer))[:MOST_FREQUENT]
    summary.facts["most_frequent_answers"] = [
        {"answer": answer, **{split: found[answer] for split, found in counts.items()}} for answer in most
    ]
    summary.tables.append(_answer_table(summary.facts["most_frequent_answers"]))
    if "test" not in splits:
        return
    if "train" not in splits:
        summary.tables.append("no ceilings: they are those of the training split's answers")
        return
    train, test = splits["train"], splits["test"]
    guess = MostFrequentAnswer(train)
    counted = [record for record in test if record.accepted]
    groups = _groups(train, counted, answers, guess) if counted else []
    summary.facts["test"] = {"groups": groups}
    summary.tables.append(_table(groups) if groups else "the test split has no answers: a test writes its predictions")
    summary.test_file = "test_questions.csv"
    images, known = {record.image for record in train}, set(answers)
    summary.test_rows = [
        {
            "index": index,
            "question_id": record.sample_id,
            "image": record.image,
            "question": record.question,
            "question_type": record.question_type,
            "closed": record.closed if _is_known(record) else None,
            "has_twin": record.has_twin,
            "image_in_train": record.image in images,
            "answer": record.answer,
            "answerable": not known.isdisjoint(record.accepted),
            "most_frequent_answer": guess(record),
        }
        for index, record in enumerate(test)
    ]


def _is_known(record: VQARecord) -> bool:
    """Whether it is known if a question is open or closed; without type and answer it is not."""
    return bool(record.accepted) or not record.closed_by_answer


def _groups(
    train: Sequence[VQARecord], test: Sequence[VQARecord], answers: Sequence[str], guess: MostFrequentAnswer
) -> list[dict[str, Any]]:
    images = {record.image for record in train}
    trained = answer_vocabulary(record.answer for record in train)
    groups = []
    for name, is_member in _MEMBERS.items():
        if name == "twin-free" and not any(record.has_twin for record in test):
            continue
        chosen = [record for record in test if is_member(record)]
        true = [record.accepted for record in chosen]
        groups.append(
            {
                "group": name,
                "questions": len(chosen),
                "ceiling": ceiling(true, answers) if true else None,
                "ceiling_of_training_answers": ceiling(true, trained) if true else None,
                "most_frequent_answer": per_cent(guess(record) in record.accepted for record in chosen),
                "image_in_train": per_cent(record.image in images for record in chosen),
            }
        )
    return groups


def _answer_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Most frequent answers", title_justify="left")
    for place, head in enumerate(rows[0] if rows else ()):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    for row in rows:
        answer, *counts = row.values()
        table.add_row(answer, *(f"{count:,}" for count in counts))
    return table


def _table(groups: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Test questions, in per cent", title_justify="left")
    heads = ("questions", "ceiling", "ceiling of\ntrain alone", "most frequent\nanswer of type", "image\nin train")
    for place, head in enumerate(("", *heads)):
        table.add_column(head, justify="right" if place else "left")
    for group in groups:
        name, questions, *shares = group.values()
        table.add_row(name, f"{questions:,}", *("-" if share is None else f"{share:.1f}" for share in shares))
    return table
