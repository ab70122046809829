"""From each answer's marks to a table: every system and every fool on every group, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd.metrics.intervals import bootstrap_interval, counted_interval, image_intervals
from umd.protocols import FEW, FEW_MARK
from umd.scoring.grades import METRICS
from umd.scoring.groups import Members

_ONE_OR_NOT: Final = ("correct", "exact_match")
_CALLED: Final = {"correct": "accuracy"}
ENDS: Final = ("interval_low", "interval_high", "image_interval_low", "image_interval_high")
"""Of accuracy; those of another metric have its name in front."""


METRICS_IN_WORDS: Final = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "token_precision": "precision",
    "token_recall": "recall",
    "bleu_1": "BLEU-1",
    "rouge_l": "ROUGE-L",
}
WHOLE: Final = ("open", "closed", "overall", "twin-free")
"""The groups of every report."""


def score_rows(
    graded: Mapping[str, pd.DataFrame],
    groups: Mapping[str, Members],
    images: NDArray[np.str_],
    fools: Collection[str],
) -> list[dict[str, Any]]:
    """A row for each system or fool on each group.

    Args:
        graded: what `grade` says of each one's answers, by its name, the fools among them.
        groups: members by place.
        images: (N,) the name of each question's image.
        fools: which of the names are fools.

    Returns:
        Rows with `system`, `fool` (whether it is one), `group`, `questions`, `images`; `accuracy`, `exact_match` and
        the other `METRICS` in per cent, each with the ends of its 95 % bootstrap intervals over questions and over
        images; `unreadable`, how many answers to closed questions say neither yes nor no; and `below`, the fools that
        a system falls behind on this group, in accuracy.
    """
    rows: list[dict[str, Any]] = []
    for group, members in groups.items():
        tables = {name: table[members] for name, table in graded.items()}
        values = np.stack([table[metric].to_numpy(np.float64) for table in tables.values() for metric in METRICS])
        over_images = iter(image_intervals(values, images[members]))
        counted = {"group": group, "questions": int(members.sum()), "images": len(np.unique(images[members]))}
        of_group: list[dict[str, Any]] = [
            {"system": name, "fool": name in fools}
            | counted
            | _measured(table, [next(over_images) for _ in METRICS])
            | {"unreadable": int(table["unreadable"].sum())}
            for name, table in tables.items()
        ]
        reached = {row["system"]: row["accuracy"] for row in of_group if row["fool"]}
        for row in of_group:
            ahead = [fool for fool, accuracy in reached.items() if accuracy > row["accuracy"]]
            row["below"] = [] if row["fool"] else ahead
        rows += of_group
    return rows


def _measured(table: pd.DataFrame, over_images: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Each metric in per cent, and the ends of its intervals."""
    found: dict[str, float] = {}
    for metric, image_ends in zip(METRICS, over_images, strict=True):
        values = table[metric].to_numpy()
        name = _CALLED.get(metric, metric)
        interval = bootstrap_interval if metric in _ONE_OR_NOT else counted_interval
        found[name] = 100 * float(values.sum()) / len(values)
        prefix = "" if metric == "correct" else f"{metric}_"
        found |= zip((prefix + end for end in ENDS), (*interval(values), *image_ends), strict=True)
    return found


def interval_text(row: Mapping[str, Any], over: str) -> str:
    """One of a row's intervals; a dash where all questions are of one image, which says nothing of others.

    Where fewer than `umd.protocols.FEW` questions, or images, stand behind it, `FEW_MARK` says that it is not to be
    leaned on.

    Args:
        row: with `questions`, `images` and the ends of the interval.
        over: "interval" (of accuracy over questions), "image_interval", or another one over questions.
    """
    count = row["images" if over == "image_interval" else "questions"]
    if over == "image_interval" and count == 1:
        return "-"
    return f"[{row[f'{over}_low']:.1f}, {row[f'{over}_high']:.1f}]{FEW_MARK if count < FEW else ''}"


def agreement(graded: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """How far each two systems agree: shares of all questions, in per cent."""
    rows = []
    for one, other in combinations(graded, 2):
        first, second = graded[one], graded[other]
        right, also = first["correct"].to_numpy(dtype=bool), second["correct"].to_numpy(dtype=bool)
        shares = {
            "same_answer": (first["answer"] == second["answer"]).to_numpy(dtype=bool),
            "both_right": right & also,
            "only_one_right": right & ~also,
            "only_other_right": also & ~right,
            "both_wrong": ~right & ~also,
        }
        rows.append({"one": one, "other": other} | {name: 100 * float(flags.mean()) for name, flags in shares.items()})
    return rows


def question_rows(asked: pd.DataFrame, graded: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a question: what was asked, what is accepted, and what each one answered and whether that is right."""
    table = asked.assign(accepted=[" | ".join(accepted) for accepted in asked["accepted"]])
    for name, marks in graded.items():
        table = table.assign(**{f"answer: {name}": marks["answer"], f"correct: {name}": marks["correct"]})
    return table


def differing(graded: Mapping[str, pd.DataFrame]) -> NDArray[np.bool_]:
    """(N,) whether the systems' answers to a question are not all the same."""
    answers = np.stack([marks["answer"].to_numpy(dtype=str) for marks in graded.values()])
    different: NDArray[np.bool_] = (answers != answers[0]).any(axis=0)
    return different
