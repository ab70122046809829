"""What is said and asked about phantom studies: captions, and questions that neither image nor text answers alone.

Two balances make a question need both. Within one question text all answers are equally frequent (closed: half yes,
half no), so the text alone says nothing; and one image gets several questions with several answers, so the image
alone says little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules.phantom_studies import MAX_LESIONS, MODALITIES, ORGANS, PLANES, SIDES, Study

QuestionType = Literal["MODALITY", "ORGAN", "PLANE", "POS", "COUN", "PRES"]

_NUMBERS = ("no", "one", "two", "three")
_WITH_ARTICLE = {"CT": "a CT", "MRI": "an MRI", "X-ray": "an X-ray"}


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one study, with its answer.

    Attributes:
        text: The question.
        rephrase: The same question in other words.
        frame: The same question in its standard form.
        answer: The true answer ("yes" or "no" if closed).
        type: Type of the question in VQA-RAD's terms.
        closed: Whether the answer is yes or no.
        reworded: Whether `text` is one of the less common phrasings.
    """

    text: str
    rephrase: str
    frame: str
    answer: str
    type: QuestionType
    closed: bool
    reworded: bool


@dataclass(frozen=True, slots=True)
class _Topic:
    """One thing to ask: phrasings with gaps; the last one is the standard form, used for frames only."""

    type: QuestionType
    answers: tuple[str, ...]
    phrasings: tuple[str, ...]


_CLOSED = ("yes", "no")
_TOPICS: dict[str, _Topic] = {
    "modality": _Topic("MODALITY", MODALITIES, (
        "What imaging modality is this?", "What type of image is this?", "How was this image taken?",
        "What is the modality of this image?",
    )),
    "organ": _Topic("ORGAN", ORGANS, (
        "What part of the body is shown?", "Which region of the body is imaged?", "What organ system is this?",
        "What is the body part in this image?",
    )),
    "plane": _Topic("PLANE", PLANES, (
        "In which plane was this image taken?", "What plane is this?", "What is the orientation of this image?",
        "What is the plane of this image?",
    )),
    "side": _Topic("POS", SIDES, (
        "On which side of the image are lesions?", "Which side of the image is abnormal?", "Where is the lesion?",
        "What is the side of the lesion?",
    )),
    "count": _Topic("COUN", tuple(str(number) for number in range(MAX_LESIONS + 1)), (
        "How many lesions are there?", "How many lesions can be seen?", "What number of lesions is visible?",
        "What is the number of lesions?",
    )),
    "is modality": _Topic("MODALITY", _CLOSED, (
        "Is this {}?", "Was this image taken by {}?", "Is the modality of this image {}?",
    )),
    "is organ": _Topic("ORGAN", _CLOSED, (
        "Is this the {}?", "Does this image show the {}?", "Is the body part in this image the {}?",
    )),
    "is plane": _Topic("PLANE", _CLOSED, (
        "Is the plane {}?", "Was this image taken in the {} plane?", "Is the plane of this image {}?",
    )),
    "is view": _Topic("MODALITY", _CLOSED, (
        "Is this {} of the {}?", "Does this image come from {} of the {}?", "Is this image {} of the {}?",
    )),
    "on side": _Topic("POS", _CLOSED, (
        "Is there a lesion on the {} side?", "Does the {} half of the image hold lesions?", "Is the lesion on the {}?",
    )),
    "any": _Topic("PRES", _CLOSED, (
        "Is there a lesion?", "Are any lesions visible?", "Is there any lesion in this image?",
    )),
    "several": _Topic("COUN", _CLOSED, (
        "Is there more than one lesion?", "Are there several lesions?", "Is the number of lesions more than one?",
    )),
}  # fmt: skip


def caption(study: Study, rng: np.random.Generator, name_modality: bool = True) -> str:
    """Describes a study in one sentence, in one of several wordings.

    Args:
        study: The study.
        rng: Chooses the wording.
        name_modality: False leaves the imaging technique out (it is then up to the image).
    """
    modality = study.modality if name_modality else "image"
    finding = "without lesions"
    seen = "no lesion is seen"
    if study.lesions:
        number = len(study.lesions)
        noun = f"{_NUMBERS[number]} {study.tone} lesion{'s' if number > 1 else ''} on the {study.side} side"
        finding, seen = f"with {noun}", f"there {'are' if number > 1 else 'is'} {noun}"
    wordings = (
        f"{study.plane} {modality} of the {study.organ} {finding}.",
        f"{modality} of the {study.organ} in the {study.plane} plane: {seen}.",
        f"{study.organ} {modality}, {study.plane} view, {finding}.",
        f"{seen} in this {study.plane} {modality} of the {study.organ}.",
    )
    text = wordings[int(rng.integers(len(wordings)))]
    return text[0].upper() + text[1:]


def ask(studies: Sequence[Study], per_image: int, rng: np.random.Generator) -> list[list[Question]]:
    """Asks every study several questions, half of them closed (rounded down), no topic twice.

    For each study the candidates whose answer is rarest so far for their text go first, so that text and answer stay
    as independent over all studies as they can be.

    Args:
        studies: The studies of one split.
        per_image: Questions a study, 2 to 10.
        rng: Breaks ties.

    Returns:
        For each study its questions.

    Raises:
        ValueError: `per_image` is out of range.
    """
    if not 2 <= per_image <= 10:
        raise ValueError(f"per_image must be from 2 to 10, got {per_image}")
    seen: Counter[tuple[str, str]] = Counter()
    asked: Counter[str] = Counter()
    everything: list[list[Question]] = []
    for study in studies:
        pool = list(_candidates(study))
        chosen: dict[str, Question] = {}
        wanted = [True] * (per_image // 2) + [False] * (per_image - per_image // 2)
        first = int(rng.integers(2))
        for number, closed in enumerate(wanted):
            options = [entry for entry in pool if entry[1].closed == closed and entry[0] not in chosen]
            if closed:  # yes and no in turns: knowing the image must not help to guess
                turn = _CLOSED[(number + first) % 2]
                options = [entry for entry in options if entry[1].answer == turn] or options

            def rank(entry: tuple[str, Question]) -> tuple[int, int, int, float]:
                topic, question = entry
                rarest = min(seen[question.text, answer] for answer in _TOPICS[topic].answers)
                count = seen[question.text, question.answer]
                return count - rarest, asked[topic], count, float(rng.random())

            topic, question = min(options, key=rank)
            chosen[topic] = question
            seen[question.text, question.answer] += 1
            asked[topic] += 1
        everything.append(list(chosen.values()))
    return everything


def _candidates(study: Study) -> Iterator[tuple[str, Question]]:
    """All that could be asked about a study, as pairs of topic and question."""
    for topic, gaps, answer in _facts(study):
        entry = _TOPICS[topic]
        texts = [phrasing.format(*gaps) for phrasing in entry.phrasings]
        for place, text in enumerate(texts[:-1]):
            yield topic, Question(
                text=text,
                rephrase=texts[(place + 1) % (len(texts) - 1)],
                frame=texts[-1],
                answer=answer,
                type=entry.type,
                closed=entry.answers == _CLOSED,
                reworded=place > 0,
            )


def _facts(study: Study) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Topic, what fills its gaps, true answer."""
    number = len(study.lesions)
    yield "modality", (), study.modality
    yield "organ", (), study.organ
    yield "plane", (), study.plane
    yield "side", (), study.side
    yield "count", (), str(number)
    yield "any", (), _yes_no(number > 0)
    yield "several", (), _yes_no(number > 1)
    for modality in MODALITIES:
        yield "is modality", (_WITH_ARTICLE[modality],), _yes_no(modality == study.modality)
        for organ in ORGANS:
            both = (modality == study.modality) + (organ == study.organ)
            if both:  # a view that is wrong in both parts is too easy to deny
                yield "is view", (_WITH_ARTICLE[modality], organ), _yes_no(both == 2)
    for organ in ORGANS:
        yield "is organ", (organ,), _yes_no(organ == study.organ)
    for plane in PLANES:
        yield "is plane", (plane,), _yes_no(plane == study.plane)
    for side in ("left", "right"):
        yield "on side", (side,), _yes_no(side == study.side)


def _yes_no(truth: bool) -> str:
    return "yes" if truth else "no"
