"""Captions and answers are true."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.phantom.studies import ORGANS, PLANES, Study, draw_studies
from datamodules.phantom.text import ask, caption


def true_answer(study: Study, text: str) -> str:
    """What a reader of the question's words would answer."""
    words = text.rstrip("?").replace("-ray", "ray").lower().split()
    count = len(study.lesions)
    facts = {"modality": study.modality.replace("-", "").lower(), "organ": study.organ, "plane": study.plane}
    values = {"modality": ("ct", "mri", "xray"), "organ": ORGANS, "plane": PLANES, "side": ("left", "right")}
    facts["side"] = study.side
    named = {topic: [word for word in words if word in of] for topic, of in values.items()}
    if "or" in words:
        return next(facts[topic] for topic, found in named.items() if found)
    if words[0] in ("is", "was", "are", "does"):
        if any(named.values()):
            return "yes" if all(facts[topic] in found for topic, found in named.items() if found) else "no"
        return "yes" if count > ("more" in words or "several" in words) else "no"
    for topic, clues in {
        "side": ("side", "where"),
        "count": ("many", "number"),
        "organ": ("part", "region"),
        "plane": ("plane",),
    }.items():
        if any(clue in words for clue in clues):
            return str(count) if topic == "count" else facts[topic]
    return facts["modality"]


def test_captions_say_what_the_study_shows() -> None:
    rng = np.random.default_rng(0)
    for study in draw_studies(60, seed=2):
        text = caption(study, rng)
        assert text[0].isupper() and text.endswith(".")
        for fact in (study.organ, study.modality, study.plane):
            assert fact.lower() in text.lower()
        assert (f"{study.side} side" in text) == bool(study.lesions)
        assert any(
            word in text.lower() for word in (("without", "no"), ("one",), ("two",), ("three",))[len(study.lesions)]
        )


def test_answers_are_true() -> None:
    studies = draw_studies(300, seed=6)
    for study, questions in zip(studies, ask(studies, 8, np.random.default_rng(0)), strict=True):
        assert len({question.text for question in questions}) == 8
        for question in questions:
            for text in (question.text, question.rephrase, question.frame):
                assert question.answer.lower().replace("-", "") == true_answer(study, text), (study.attributes, text)


def test_too_many_questions_are_an_error() -> None:
    with pytest.raises(ValueError, match="per_image must be from 1 to 8, got 9"):
        ask([], 9, np.random.default_rng(0))
