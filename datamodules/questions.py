"""One question about an image: its record, from a row as published; and which rows ask the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.answers import accepted_answers
from datamodules.problems import Problems

YES_OR_NO = ("yes", "no")
"""What closed questions are answered, where a data set does not say which they are."""

ATTRIBUTES = {
    "organ": ("organ", "image_organ"),
    "modality": ("modality",),
    "plane": ("plane",),
    "location": ("location",),
}
"""What a row may say of its image or question, and the keys that it says it under."""


@dataclass(frozen=True, slots=True)
class VQARecord:
    """One question about an image.

    Attributes:
        sample_id: The question's id, unique in its split.
        image: Path of the image, relative to the data set's root.
        question: As published.
        answer: After VQA normalisation; of several accepted ones the first, which is trained on. "" where the data set
            gives none, as the test split of a challenge does.
        closed: A closed question (yes / no and the like), else an open one.
        question_type: As published, "" where the data set gives none.
        has_twin: Whether a twin of it (see `datamodules.vqa_rad`) stands on the other side of the train / test split
            as the field uses it.
        twins: Of a test question, the training rows that are twins of it, as published.
        also_accepted: Further answers that count as right, normalised.
        published_answer: The answer as published; "" where there is none.
        closed_by_answer: Whether the data set does not say which questions are closed, so that this one is closed if it
            is answered yes or no.
        attributes: What else the data set says of the image or question, by name: see `ATTRIBUTES`.
        linked: Of a training row, a number that it shares with those that reword it; None where the data set does not
            tell rewordings.
    """

    sample_id: str
    image: str
    question: str
    answer: str
    closed: bool
    question_type: str
    has_twin: bool = False
    twins: tuple[VQARecord, ...] = ()
    also_accepted: tuple[str, ...] = ()
    published_answer: str = ""
    closed_by_answer: bool = False
    attributes: tuple[tuple[str, str], ...] = ()
    linked: int | None = None

    @property
    def accepted(self) -> tuple[str, ...]:
        """All answers that count as right; none where the data set gives none."""
        return (self.answer, *self.also_accepted) if self.answer else ()

    @property
    def text(self) -> str:
        """The question."""
        return self.question

    @property
    def alternative_texts(self) -> tuple[str, ...]:
        """None: a question is used as it is."""
        return ()


def vqa_record(
    row: Mapping[str, Any],
    problems: Problems,
    *,
    where: str,
    image_key: str,
    sample_id: str,
    folder: str = "",
    question_key: str = "question",
    type_key: str = "question_type",
) -> VQARecord | None:
    """The record of a published row, or None (and a counted problem) where it cannot be used.

    Args:
        row: The row, with `answer` (one, or a list of accepted ones; a row without any is kept), `answer_type` ("OPEN"
            or "CLOSED", blanks and case aside; without it a question is closed if it is answered yes or no) and the
            keys below.
        problems: Takes the row if it has no question, no image or an unknown answer type.
        where: The file, for messages.
        image_key: Key of the image's path.
        sample_id: The question's id.
        folder: What the paths of images are relative to, itself relative to the data set's root.
        question_key: Key of the question.
        type_key: Key of the question's type.
    """
    question, image = row.get(question_key), row.get(image_key)
    answers, answer_type = accepted_answers(row.get("answer")), _upper(row.get("answer_type"))
    if not isinstance(question, str) or not question.strip():
        problems.add("row without a question, left out", f"{where}, id {sample_id}")
    elif answer_type not in ("OPEN", "CLOSED", ""):
        problems.add("row whose answer_type is neither OPEN nor CLOSED, left out", f"{where}, id {sample_id}")
    elif not isinstance(image, str) or not image.strip():
        problems.add(f"row without {image_key}, left out", f"{where}, id {sample_id}")
    else:
        answer, *others = answers or [""]
        return VQARecord(
            sample_id,
            image=f"{folder}/{image}" if folder else image,
            question=question.strip(),
            answer=answer,
            closed=answer_type == "CLOSED" if answer_type else answer in YES_OR_NO,
            question_type=str(row.get(type_key) or "").strip(),
            also_accepted=tuple(others),
            published_answer=answers.get(answer, ""),
            closed_by_answer=not answer_type,
            attributes=tuple(_attributes(row)),
        )
    return None


def _attributes(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Those of `ATTRIBUTES` that a row has."""
    for name, keys in ATTRIBUTES.items():
        given = (row.get(key) for key in keys)
        text = next((value.strip() for value in given if isinstance(value, str) and value.strip()), "")
        if text:
            yield name, text


def _upper(value: object) -> str:
    """A field in capitals, "" where it is null, as tables leave a cell empty."""
    return "" if value is None or value != value else str(value).strip().upper()


def with_unique_ids(records: Sequence[VQARecord], problems: Problems) -> list[VQARecord]:
    """The same records; an id that occurred before gets "#2", "#3" and so on, which is a counted problem."""
    seen: Counter[str] = Counter()
    taken = {record.sample_id for record in records}
    unique = []
    for record in records:
        seen[record.sample_id] += 1
        if seen[record.sample_id] > 1:
            name = f"{record.sample_id}#{seen[record.sample_id]}"
            while name in taken:
                name += "'"
            taken.add(name)
            problems.add("question id that occurs again, renamed", f"{record.sample_id} to {name}")
            record = replace(record, sample_id=name)
        unique.append(record)
    return unique


def places_of_twins(
    train: Sequence[Collection[tuple[str, str]]], test: Sequence[Collection[tuple[str, str]]]
) -> list[tuple[int, ...]]:
    """For each test question the places of the training rows that share an image with the same words, in their order.

    Args:
        train: The (image, words) of each training row.
        test: Those of each test question, in every form that it has.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, keys in enumerate(train):
        for key in keys:
            places.setdefault(key, []).append(place)
    return [tuple(sorted({place for key in keys for place in places.get(key, ())})) for keys in test]


def linked_by_keys(keys: Sequence[Collection[Hashable]]) -> list[int]:
    """For each row the place of the first that it is linked with; rows are linked that share a key, also by others.

    Args:
        keys: Those of each row.
    """
    before = list(range(len(keys)))

    def first(place: int) -> int:
        while before[place] != place:
            place = before[place]
        return place

    seen: dict[Hashable, int] = {}
    for place, own in enumerate(keys):
        for key in own:
            one, other = sorted((first(place), first(seen.setdefault(key, place))))
            before[other] = one
    return [first(place) for place in range(len(keys))]


def mark_twins_by_text(
    train: Sequence[VQARecord], test: Sequence[VQARecord]
) -> tuple[list[VQARecord], list[VQARecord]]:
    """The same rows; twins are those of one image whose questions are equal, case and outer blanks aside."""
    asked, known = ([[(row.image, row.question.strip().lower())] for row in rows] for rows in (test, train))
    found = places_of_twins(known, asked)
    twins = {place for places in found for place in places}
    return (
        [replace(record, has_twin=place in twins) for place, record in enumerate(train)],
        [
            replace(record, has_twin=bool(places), twins=tuple(train[place] for place in places))
            for record, places in zip(test, found, strict=True)
        ],
    )
