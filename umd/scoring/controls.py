"""A system's answers to the same questions asked otherwise, from files: what its answers owe to image and wording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from umd.files import UserError
from umd.metrics.grounding import control_rows
from umd.scoring.answers import Given
from umd.scoring.grades import Normalize, grade
from umd.scoring.matching import Matched, match
from umd.scoring.questions import Questions

TWINS: Final = "twins"
"""The control whose file answers the questions' twins, by their own ids."""


def controlled(
    questions: Questions,
    matched: Matched,
    marks: pd.DataFrame,
    controls: Mapping[str, Given],
    normalize: Normalize,
    same: Callable[[str], str],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Lay the answers under each control beside those to the questions as they are.

    A control's rows are matched and graded as the system's own, but that image and question are not looked at where
    there are ids: they may well be others. The rows of `TWINS` answer other questions, the twins, by their ids or by
    image and question, and are graded by the twins' own answers. A question that either file has no row for is left
    out. Of closed questions about yes or no it is what was read that changes or not, elsewhere the normalised answer.

    Args:
        questions: those that count.
        matched: the system's answers as they were found.
        marks: of these answers, see `umd.scoring.grades.grade`.
        controls: the files, by the names of the controls.
        normalize: the VQA normalisation.
        same: what an answer is compared by.

    Returns:
        See `umd.metrics.grounding.control_rows`; and a note for each control.

    Raises:
        UserError: a file matches no question, or none that the system has answered; or no question has a twin.
    """
    asked = _compared(marks).assign(image=questions.table["image"], closed=questions.table["closed"])
    asked = asked[pd.Series(matched.there)]
    frames: dict[str, pd.DataFrame] = {}
    notes = []
    for name, given in controls.items():
        frame, note = _answers(questions, name, given, normalize, same)
        frames[name] = frame[frame.index.isin(asked.index)]
        if not len(frames[name]):
            raise UserError(f"{given.path}: not one of its questions is answered as asked")
        notes.append(f"control {name}: {len(frames[name]):,} questions are answered both ways, {note}")
    return control_rows(asked, frames), notes


def _answers(
    questions: Questions, name: str, given: Given, normalize: Normalize, same: Callable[[str], str]
) -> tuple[pd.DataFrame, str]:
    """`answer` and `correct` by the question's place, and how they were found."""
    asked = questions.table
    places = {question: place for place, question in enumerate(asked["question_id"])}
    pairs = pd.DataFrame({"of": asked["question_id"], "answered": asked["question_id"]})
    if name == TWINS:
        twins = questions.twins
        if len(twins):
            twins = twins[twins["of"].isin(places) & twins["accepted"].map(bool)]
        if not len(twins):
            raise UserError(f"{given.path}: the control '{TWINS}' answers twins, and these questions have none")
        pairs = twins[["of", "question_id"]].rename(columns={"question_id": "answered"})
        asked = twins.drop_duplicates("question_id").reset_index(drop=True)  # one twin may be that of several questions
    elif "id" in given.table:
        given = replace(given, table=given.table[["id", "answer"]])
    found = match(asked, given, same)
    marks = grade(asked["accepted"].tolist(), found.answers, asked["closed"].tolist(), normalize)
    answered = _compared(marks).set_axis(asked["question_id"])[found.there]
    pairs = pairs[pairs["answered"].isin(answered.index)]
    unknown = f"rows for none of the {len(asked):,} twins that are compared" if name == TWINS else "unknown"
    kinds = {"contradictory": "contradictory", "empty": "empty", "unknown": unknown}
    counts = [f"{found.counts[kind]:,} {told}" for kind, told in kinds.items() if found.counts[kind]]
    frame = answered.loc[pairs["answered"]].set_axis(pairs["of"].map(places))
    return frame, ", ".join([f"matched by {found.by}", *counts])


def _compared(marks: pd.DataFrame) -> pd.DataFrame:
    answers = marks["answer"].where(marks["read"] == "", marks["read"])
    return pd.DataFrame({"answer": answers, "correct": marks["correct"]})
