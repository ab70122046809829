"""The groups of questions that a score is broken down by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umd.metrics.predictions import question_groups
from umd.scoring.questions import Questions

Members = NDArray[np.bool_]


def breakdown(questions: Questions) -> dict[str, Members]:
    """The groups, as members by place in the split.

    First those of every report (open, closed, overall, twin-free), then the data set's. A group with no question, or
    with all of them, tells nothing beside "overall" and is left out.
    """
    groups = question_groups(questions.table)
    more = {name: np.array(members, dtype=bool) for name, members in questions.groups.items()}
    return groups | {name: members for name, members in more.items() if members.any() and not members.all()}
