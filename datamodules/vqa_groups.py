"""The kinds of questions that a data set can tell apart: by what train holds, and by what the rows say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from datamodules.questions import VQARecord


def question_kinds(training: Sequence[VQARecord], asked: Sequence[VQARecord]) -> dict[str, list[bool]]:
    """Groups of questions, as members by place.

    First whether the image, and whether an accepted answer, occurs in train; then each type, and each value of what
    else the rows say (organ, modality, ...), the most frequent first. A question of two kinds ("PRES, POS") is in both
    groups. A group without a question, or with all of them, tells nothing and is left out.

    Args:
        training: The rows trained on; without any, there are no groups by them.
        asked: The questions.
    """
    groups: dict[str, list[bool]] = {}
    if training:
        images, answers = {record.image for record in training}, {record.answer for record in training}
        seen = [record.image in images for record in asked]
        known = [not answers.isdisjoint(record.accepted) for record in asked]
        groups |= {"image not in train": [not one for one in seen], "image in train": seen}
        groups |= {"answer in train": known, "answer not in train": [not one for one in known]}
    said = [{"type": record.question_type, **dict(record.attributes)} for record in asked]
    for name in dict.fromkeys(name for of_one in said for name in of_one):
        groups |= _by_value(name, said)
    return {name: members for name, members in groups.items() if any(members) and not all(members)}


def _by_value(name: str, said: Sequence[Mapping[str, str]]) -> dict[str, list[bool]]:
    values = [[part.strip() for part in of_one.get(name, "").split(",") if part.strip()] for of_one in said]
    counts = Counter(value for of_one in values for value in dict.fromkeys(of_one))
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    return {f"{name}: {value}": [value in of_one for of_one in values] for value in ordered}
