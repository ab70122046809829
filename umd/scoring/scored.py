"""Several systems' answers to the same questions: all that the referee has to say of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import pandas as pd

from umd.files import UserError
from umd.metrics.paired import corrected, pair_rows
from umd.scoring.answers import Given
from umd.scoring.controls import controlled
from umd.scoring.grades import Normalize, compared, grade
from umd.scoring.groups import breakdown
from umd.scoring.matching import Matched, match
from umd.scoring.questions import Questions
from umd.scoring.scores import agreement, differing, question_rows, score_rows
from umd.scoring.vote import VOTE, vote

SCHEMA = 1
"""The version of what `Scored.as_json` holds; it grows where a field changes its meaning or goes."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Systems, and fools beside them.

    Attributes:
        questions: those that count.
        matched: each system's answers as they were found, by its name.
        graded: the marks of each system and then of each fool, see `umd.scoring.grades.grade`.
        rows: see `umd.scoring.scores.score_rows`.
        pairs: each two systems on all questions, see `umd.metrics.paired.pair_rows`, with `p_holm`; empty for one.
        controls: the system on the same questions asked otherwise, see `umd.metrics.grounding.control_rows`.
        notes: what a reader must know, a line each.
    """

    questions: Questions
    matched: Mapping[str, Matched]
    graded: Mapping[str, pd.DataFrame]
    rows: list[dict[str, Any]]
    pairs: pd.DataFrame
    controls: list[dict[str, Any]]
    notes: tuple[str, ...]

    @property
    def systems(self) -> dict[str, pd.DataFrame]:
        """The marks without the fools'."""
        return {name: self.graded[name] for name in self.matched}

    @property
    def agreement(self) -> list[dict[str, Any]]:
        """How far each two systems agree."""
        return agreement(self.systems)

    def as_json(self) -> dict[str, Any]:
        """All numbers, as plain values."""
        return {
            "schema": SCHEMA,
            "questions": self.questions.title,
            "notes": list(self.notes),
            "systems": {name: {"by": found.by, **found.counts} for name, found in self.matched.items()},
            "rows": self.rows,
            "pairs": self.pairs.to_dict("records"),
            "agreement": self.agreement,
            "controls": self.controls,
        }

    def files(self) -> dict[str, str]:
        """The texts of the files that hold it, by their names."""
        rows = [row | {"below": ", ".join(row["below"])} for row in self.rows]
        everyone = question_rows(self.questions.table, self.graded)
        files = {
            "scores.json": json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            "scores.csv": pd.DataFrame(rows).to_csv(index=False),
            "questions.csv": everyone.to_csv(index=False),
        }
        if len(self.matched) > 1:
            differ = question_rows(self.questions.table, self.systems)[differing(self.systems)]
            files["differences.csv"] = differ.to_csv(index=False)
        return files


def score(
    questions: Questions,
    answers: Mapping[str, Given],
    normalize: Normalize,
    runs: Collection[str] = (),
    controls: Mapping[str, Given] | None = None,
    voting: bool = False,
) -> Scored:
    """Match, grade and compare.

    Args:
        questions: of a split.
        answers: the files, by the names of the systems.
        normalize: the VQA normalisation.
        runs: which of the systems are tests of this project's own: what such a test left out, since its image cannot
            be read or only a part was tested, does not count for anyone.
        controls: the only system's answers to the same questions asked otherwise, see `umd.scoring.controls`.
        voting: with one more system, `umd.scoring.vote.VOTE`, which gives the answer of most of them.

    Raises:
        UserError: no question has an answer to compare with, or a file matches none.
    """
    normalize = cache(normalize)  # the same few texts, for each system and fool again

    def same(answer: str) -> str:
        return compared(answer, normalize)

    questions = questions.apart_from(answers)
    total, notes = len(questions.table), list(questions.notes)
    questions = questions.only(questions.table["accepted"].map(bool))
    if not len(questions.table):
        raise UserError(f"{questions.title}: no question has an answer to compare with")
    if left := total - len(questions.table):
        notes.append(f"{left:,} questions have no answer to compare with, and do not count")
    matched = {name: match(questions.table, given, same) for name, given in answers.items()}
    tested = pd.Series(True, index=questions.table.index)
    for name in runs:
        tested &= pd.Series(matched[name].there)
    if not tested.all():
        notes.append(f"{int((~tested).sum()):,} questions were left out by the test of a run, and do not count")
        questions = questions.only(tested)
        matched = {name: match(questions.table, given, same) for name, given in answers.items()}
    if voting:
        matched[VOTE] = vote(matched, same)
    answered: dict[str, Sequence[str | None]] = {name: found.answers for name, found in matched.items()}
    accepted, closed = questions.table["accepted"].tolist(), questions.table["closed"].tolist()
    graded = {
        name: grade(accepted, given, closed, normalize) for name, given in (answered | dict(questions.fools)).items()
    }
    images = questions.table["image"].to_numpy(dtype=str)
    rows = score_rows(graded, breakdown(questions), images, set(questions.fools))
    correct = {name: graded[name]["correct"].to_numpy(dtype=bool)[None] for name in matched}
    pairs = [
        row
        for one, other in combinations(matched, 2)
        for row in pair_rows((one, other), correct[one], correct[other], images, "questions")
    ]
    for name, found in matched.items():
        start = f"{name}: " if len(matched) > 1 else ""
        how = [f"matched by {found.by}"] if name in answers else []
        notes += [start + note for note in (*how, *found.notes, *_of_reading(graded[name]))]
    under_controls: list[dict[str, Any]] = []
    if controls:
        (name,) = matched
        under_controls, told = controlled(questions, matched[name], graded[name], controls, normalize, same)
        notes += told
    return Scored(questions, matched, graded, rows, corrected(pairs), under_controls, tuple(notes))


def _of_reading(marks: pd.DataFrame) -> list[str]:
    """How many yes and no were read out of sentences, and how many could not be."""
    read = int((marks["correct"] & ~marks["exact_match"]).sum())
    lost = int(marks["unreadable"].sum())
    notes = []
    if read:
        notes.append(f"{read:,} right answers to closed questions are a yes or no that was read out of a sentence")
    if lost:
        notes.append(f"{lost:,} answers to closed questions say neither yes nor no, and count as wrong")
    return notes
