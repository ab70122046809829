"""What a data set holds under the settings in use, before anything is trained."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from rich.table import Table

from datamodules.answers import answer_vocabulary, ceiling
from datamodules.base import ImageTextDataModule, Split
from datamodules.baselines import MostFrequentAnswer, most_frequent
from datamodules.melinda import MELINDA
from datamodules.vqa import VQADataModule, VQARecord


def summarize(data: ImageTextDataModule[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The facts about a data set, and one row for each test question (or each test row with a class).

    Args:
        data: A data module whose files are prepared.

    Returns:
        The facts, as plain values: `class`, `root` (the data set's folder), `description`, `splits`, for questions
        and classes also `test`, and `test_file`, the name of the file that the rows belong in, or None where there
        are none. Accuracies and ceilings are in per cent, None where there is nothing to measure. Then the rows, in
        the split's order.

    Raises:
        FileNotFoundError: The files are not there, or there is no training split to take answers or classes from.
        ValueError: A split has no usable row.
    """
    splits: dict[Split, list[Any]] = {split: data.records(split) for split in get_args(Split) if data.has_split(split)}
    facts: dict[str, Any] = {"class": f"{type(data).__module__.split('.')[0]}.{type(data).__name__}"}
    facts["root"] = str(data.root.absolute())
    facts["description"] = data.description
    facts["splits"] = {
        split: {"rows": len(rows), "image_unusable": data.left_out(split), "images": len({row.image for row in rows})}
        for split, rows in splits.items()
    }
    facts["test_file"] = None
    rows: list[dict[str, Any]] = []
    if isinstance(data, VQADataModule):
        rows = _add_questions(facts, data, splits)
    elif isinstance(data, MELINDA):
        rows = _add_classes(facts, data, splits)
    return facts, rows


def _add_questions(
    facts: dict[str, Any], data: VQADataModule, splits: Mapping[Split, Sequence[VQARecord]]
) -> list[dict[str, Any]]:
    train, vocabulary = data.records("train"), data.answers
    for split, records in splits.items():
        facts["splits"][split] |= {
            "open": sum(not record.closed for record in records),
            "closed": sum(record.closed for record in records),
            "with_twin": sum(record.has_twin for record in records),
        }
    facts["answers"] = len(vocabulary)
    if "test" not in splits:
        return []
    facts["test_file"] = "test_questions.csv"
    test = splits["test"]
    images, known, guess = {record.image for record in train}, set(vocabulary), MostFrequentAnswer(train)
    trained = answer_vocabulary(record.answer for record in train)
    members: dict[str, Callable[[VQARecord], bool]] = {
        "open": lambda record: not record.closed,
        "closed": lambda record: record.closed,
        "overall": lambda record: True,
        "twin-free": lambda record: not record.has_twin,
    }
    if not any(record.has_twin for record in test):
        del members["twin-free"]
    groups = []
    for name, is_member in members.items():
        chosen = [record for record in test if is_member(record)]
        answers = [record.answer for record in chosen]
        groups.append(
            {
                "group": name,
                "questions": len(chosen),
                "ceiling": ceiling(answers, vocabulary) if answers else None,
                "ceiling_of_training_answers": ceiling(answers, trained) if answers else None,
                "most_frequent_answer": _per_cent(guess(record) == record.answer for record in chosen),
                "image_in_train": _per_cent(record.image in images for record in chosen),
            }
        )
    facts["test"] = {"groups": groups}
    return [
        {
            "index": index,
            "question_id": record.sample_id,
            "image": record.image,
            "question": record.question,
            "question_type": record.question_type,
            "closed": record.closed,
            "has_twin": record.has_twin,
            "image_in_train": record.image in images,
            "answer": record.answer,
            "answerable": record.answer in known,
            "most_frequent_answer": guess(record),
        }
        for index, record in enumerate(test)
    ]


def _add_classes(facts: dict[str, Any], data: MELINDA, splits: Mapping[Split, Sequence[Any]]) -> list[dict[str, Any]]:
    majority = most_frequent(record.label for record in data.records("train"))
    known = set(data.classes)
    facts["label"] = data.label
    for split, records in splits.items():
        facts["splits"][split]["classes"] = dict(sorted(Counter(record.label for record in records).items()))
    if "test" not in splits:
        return []
    facts["test_file"] = "test_rows.csv"
    test = splits["test"]
    facts["test"] = {
        "most_frequent_label": majority,
        "most_frequent_label_accuracy": _per_cent(record.label == majority for record in test),
        "ceiling": _per_cent(record.label in known for record in test),
    }
    return [
        {"index": index, "sample_id": record.sample_id, "label": record.label, "most_frequent_label": majority}
        for index, record in enumerate(test)
    ]


def tables(facts: Mapping[str, Any]) -> Iterable[Table | str]:
    """The facts of `summarize` for the terminal."""
    description = dict(facts["description"])
    title = description.pop("data")
    splits: dict[str, dict[str, Any]] = facts["splits"]
    table = Table(title=", ".join([title, *_told(description, splits)]), title_justify="left")
    table.add_column("split")
    names = [name for name in next(iter(splits.values())) if name != "classes"]
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for split, counts in splits.items():
        table.add_row(split, *(f"{counts[name]:,}" for name in names))
    yield table
    if "answers" in facts:
        yield f"{facts['answers']:,} answers in the vocabulary"
    if classes := next((counts["classes"] for counts in splits.values() if "classes" in counts), None):
        table = Table(title=f"Rows of each class ({facts['label']})", title_justify="left")
        table.add_column("class", overflow="fold")
        for split in splits:
            table.add_column(split, justify="right")
        for label in sorted({*classes, *(label for counts in splits.values() for label in counts["classes"])}):
            table.add_row(label, *(f"{counts['classes'].get(label, 0):,}" for counts in splits.values()))
        yield table
    if missing := [split for split in get_args(Split) if split not in splits]:
        yield f"there is no {' and no '.join(missing)} split"
    test = facts.get("test", {})
    if "groups" in test:
        table = Table(title="Test questions, in per cent", title_justify="left")
        heads = ("questions", "ceiling", "ceiling of\ntrain alone", "most frequent\nanswer of type", "image\nin train")
        for place, head in enumerate(("", *heads)):
            table.add_column(head, justify="right" if place else "left")
        for group in test["groups"]:
            name, questions, *shares = group.values()
            table.add_row(name, f"{questions:,}", *("-" if share is None else f"{share:.1f}" for share in shares))
        yield table
    elif test:
        yield (
            f"most frequent label of train: {test['most_frequent_label']}, right on "
            f"{test['most_frequent_label_accuracy']:.1f} % of the test rows (ceiling {test['ceiling']:.1f} %)"
        )


def _told(description: Mapping[str, str], splits: Iterable[str]) -> list[str]:
    """What a data module says about itself, without the numbers of rows that stand in the table."""
    return [f"{key}: {value}" for key, value in description.items() if key not in splits]


def _per_cent(flags: Iterable[bool]) -> float | None:
    given = list(flags)
    return 100.0 * sum(given) / len(given) if given else None


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV text with a header; true and false in small letters."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: str(value).lower() if isinstance(value, bool) else value for key, value in row.items()})
    return text.getvalue()
