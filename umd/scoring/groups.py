"""The groups of questions that a score is broken down by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umd.metrics.predictions import question_groups
from umd.scoring.questions import Questions

Members = NDArray[np.bool_]


def breakdown(questions: Questions) -> dict[str, Members]:
    """The groups, as members by place in the split.

    First those of every report (open, closed, overall, twin-free); then whether the image, and whether the answer,
    occurs in train; then each value of each attribute, the most frequent first. A question of two kinds ("PRES, POS")
    is in both groups. A group with no question, or with all of them, tells nothing and is left out.
    """
    table = questions.table
    groups = question_groups(table)
    seen, known = (table[name].to_numpy(dtype=bool) for name in ("image_in_train", "answer_in_train"))
    more = {
        "image not in train": ~seen,
        "image in train": seen,
        "answer in train": known,
        "answer not in train": ~known,
    }
    for column, name in questions.attributes.items():
        values = [[part.strip() for part in value.split(",") if part.strip()] for value in table[column]]
        kinds, counts = np.unique([part for parts in values for part in parts], return_counts=True)
        for place in np.argsort(-counts, kind="stable"):
            more[f"{name}: {kinds[place]}"] = np.array([kinds[place] in parts for parts in values])
    return groups | {name: members for name, members in more.items() if members.any() and not members.all()}
