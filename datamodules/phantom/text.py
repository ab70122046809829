"""What is said and asked about phantom studies: captions, and questions that need image and text together.

Two balances see to it. Within one question text all answers are equally frequent, so the text alone says
little; and one image gets several questions with different answers, so the image alone says little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from datamodules.phantom.studies import MAX_LESIONS, MODALITIES, ORGANS, PLANES, SIDES, Study
from umd.files import UserError

QuestionType = Literal["MODALITY", "ORGAN", "PLANE", "POS", "COUN", "PRES"]
Form = Literal["open", "choice", "yes/no"]

_NUMBERS = ("no", "one", "two", "three")
_WITH_ARTICLE = {"CT": "a CT", "MRI": "an MRI", "X-ray": "an X-ray"}
_YES_NO = ("yes", "no")
_TURNS = ("choice", "yes", "choice", "no")
_COUNTS = tuple(str(number) for number in range(MAX_LESIONS + 1))


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one study, with its answer.

    Attributes:
        text: The question.
        rephrase: The same question in other words.
        frame: The same question in its standard form.
        answer: The true answer.
        type: Type of the question in VQA-RAD's terms.
        closed: Whether the question names its possible answers (one of two, or yes and no).
        reworded: Whether `text` is the less common of two wordings.
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
    """One thing to ask, as two wordings and a standard form with gaps to fill; `share` says how often."""

    type: QuestionType
    form: Form
    wordings: tuple[str, str, str]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A question that could be asked, with the answers that its text can have (over all studies)."""

    topic: str
    form: Form
    question: Question
    possible: tuple[str, ...]


_TOPICS = {
    "modality": _Topic(
        "MODALITY",
        "open",
        ("What imaging modality is this?", "How was this image taken?", "What is the modality?"),
    ),
    "organ": _Topic(
        "ORGAN",
        "open",
        ("What part of the body is shown?", "Which region is imaged?", "What is the part of the body?"),
    ),
    "plane": _Topic(
        "PLANE",
        "open",
        ("In which plane was this image taken?", "Which plane is shown?", "What is the plane?"),
    ),
    "side": _Topic(
        "POS",
        "open",
        ("Where is the lesion?", "Which side of the image is abnormal?", "What is the side of the lesion?"),
        share=2.0,
    ),
    "count": _Topic(
        "COUN",
        "open",
        ("How many lesions are there?", "How many lesions can be seen?", "What is the number of lesions?"),
    ),
    "which modality": _Topic(
        "MODALITY",
        "choice",
        ("Is this {} or {}?", "Was this image taken by {} or {}?", "Is the modality {} or {}?"),
    ),
    "which organ": _Topic(
        "ORGAN",
        "choice",
        ("Is this the {} or the {}?", "Is the {} or the {} shown?", "Is the part of the body {} or {}?"),
    ),
    "which plane": _Topic(
        "PLANE",
        "choice",
        ("Is the image {} or {}?", "Was this image taken in the {} or {} plane?", "Is the plane {} or {}?"),
    ),
    "which side": _Topic(
        "POS",
        "choice",
        (
            "Is the lesion on the left or the right?",
            "Is the left or the right side abnormal?",
            "Is the side of the lesion left or right?",
        ),
        share=2.0,
    ),
    "is modality": _Topic("MODALITY", "yes/no", ("Is this {}?", "Was this image taken by {}?", "Is the modality {}?")),
    "is organ": _Topic("ORGAN", "yes/no", ("Is this the {}?", "Is the {} shown?", "Is the part of the body the {}?")),
    "is plane": _Topic(
        "PLANE",
        "yes/no",
        ("Is the image {}?", "Was this image taken in the {} plane?", "Is the plane {}?"),
    ),
    "is view": _Topic(
        "MODALITY",
        "yes/no",
        ("Is this {} of the {}?", "Does this look like {} of the {}?", "Is the image {} of the {}?"),
    ),
    "on side": _Topic(
        "POS",
        "yes/no",
        ("Is there a lesion on the {} side?", "Is the {} side abnormal?", "Is the lesion on the {}?"),
        share=2.0,
    ),
    "any": _Topic(
        "PRES",
        "yes/no",
        ("Is there a lesion?", "Are any lesions visible?", "Is a lesion present?"),
    ),
    "several": _Topic(
        "COUN",
        "yes/no",
        ("Is there more than one lesion?", "Are there several lesions?", "Is the number more than one?"),
    ),
}


def caption(study: Study, rng: np.random.Generator, name_modality: bool = True) -> str:
    """Describes a study in one sentence, in one of several wordings.

    Args:
        study: The study.
        rng: Chooses the wording.
        name_modality: False leaves the imaging technique out (then only the image shows it).
    """
    modality = study.modality if name_modality else "image"
    finding, seen = "without lesions", "no lesion is seen"
    if study.lesions:
        number = len(study.lesions)
        lesions = f"{_NUMBERS[number]} lesion{'s' if number > 1 else ''}"
        finding = f"with {lesions} on the {study.side} side"
        seen = f"there {'are' if number > 1 else 'is'} {lesions} on the {study.side} side"
    wordings = (
        f"{study.plane} {modality} of the {study.organ} {finding}.",
        f"{modality} of the {study.organ} in the {study.plane} plane: {seen}.",
        f"{study.organ} {modality}, {study.plane} view, {finding}.",
        f"{seen} in this {study.plane} {modality} of the {study.organ}.",
    )
    text = wordings[int(rng.integers(len(wordings)))]
    return text[0].upper() + text[1:]


def ask(studies: Sequence[Study], per_image: int, rng: np.random.Generator) -> list[list[Question]]:
    """Asks every study several questions: half of them open (rounded up), no topic twice.

    The closed ones are in turns a choice of two, a "yes", a choice of two, a "no". Of the possible questions,
    one goes first whose answer was given least often to its text so far: over all studies text and answer stay
    as independent as they can be.

    Args:
        studies: The studies of one split.
        per_image: Questions a study, 1 to 8.
        rng: Breaks ties.

    Returns:
        For each study its questions.

    Raises:
        UserError: `per_image` is out of range.
    """
    if not 1 <= per_image <= 8:
        raise UserError(f"per_image must be from 1 to 8, got {per_image}")
    given: Counter[tuple[str, str]] = Counter()
    asked: Counter[str] = Counter()

    def rank(candidate: _Candidate) -> tuple[int, float, int, float]:
        question = candidate.question
        count = given[question.text, question.answer]
        rarest = min(given[question.text, answer] for answer in candidate.possible)
        due = asked[candidate.topic] / _TOPICS[candidate.topic].share
        return count - rarest, due, count, float(rng.random())

    asked_of = []
    for study in studies:
        candidates = list(_candidates(study))
        chosen: dict[str, Question] = {}
        turn = int(rng.integers(len(_TURNS)))
        for number in range(per_image):
            left = [candidate for candidate in candidates if candidate.topic not in chosen]
            if number < (per_image + 1) // 2:
                left = [candidate for candidate in left if candidate.form == "open"]
            else:
                wanted = _TURNS[(number + turn) % len(_TURNS)]
                closed = [candidate for candidate in left if candidate.form != "open"]
                left = [candidate for candidate in closed if wanted in (candidate.form, candidate.question.answer)]
            best = min(left, key=rank)
            chosen[best.topic] = best.question
            given[best.question.text, best.question.answer] += 1
            asked[best.topic] += 1
        asked_of.append(list(chosen.values()))
    return asked_of


def _candidates(study: Study) -> Iterator[_Candidate]:
    """All that could be asked about a study."""
    for name, gaps, answer, possible in _facts(study):
        topic = _TOPICS[name]
        common, other, frame = (wording.format(*gaps) for wording in topic.wordings)
        for text, rephrase in ((common, other), (other, common)):
            question = Question(
                text=text,
                rephrase=rephrase,
                frame=frame,
                answer=answer,
                type=topic.type,
                closed=topic.form != "open",
                reworded=text == other,
            )
            yield _Candidate(name, topic.form, question, possible)


def _facts(study: Study) -> Iterator[tuple[str, tuple[str, ...], str, tuple[str, ...]]]:
    """Topic, what fills its gaps, the true answer, and the answers that the same text can have."""

    def whether(topic: str, truth: bool, *gaps: str) -> tuple[str, tuple[str, ...], str, tuple[str, ...]]:
        return topic, gaps, "yes" if truth else "no", _YES_NO

    count = len(study.lesions)
    yield "modality", (), study.modality, MODALITIES
    yield "organ", (), study.organ, ORGANS
    yield "plane", (), study.plane, PLANES
    yield "side", (), study.side, SIDES
    yield "count", (), str(count), _COUNTS
    for one in combinations(MODALITIES, 2):
        if study.modality in one:
            gaps = (_WITH_ARTICLE[one[0]], _WITH_ARTICLE[one[1]])
            yield "which modality", gaps, study.modality, one
    for topic, truth, values in (("organ", study.organ, ORGANS), ("plane", study.plane, PLANES)):
        for two in combinations(values, 2):
            if truth in two:
                yield f"which {topic}", two, truth, two
        for value in values:
            yield whether(f"is {topic}", value == truth, value)
    if count:
        yield "which side", (), study.side, ("left", "right")
    for modality in MODALITIES:
        yield whether("is modality", modality == study.modality, _WITH_ARTICLE[modality])
        for organ in ORGANS:
            right = (modality == study.modality) + (organ == study.organ)
            if right:  # wrong in both would be too easy to deny
                yield whether("is view", right == 2, _WITH_ARTICLE[modality], organ)
    for side in ("left", "right"):
        yield whether("on side", side == study.side, side)
    yield whether("any", count > 0)
    yield whether("several", count > 1)
