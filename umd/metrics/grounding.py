"""What answers owe to the image and to the wording: the same questions asked otherwise, laid beside themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from umd.metrics.intervals import bootstrap_interval, image_interval

CONTROL_COLUMNS: Final = (
    "control",
    "questions",
    "accuracy",
    "interval_low",
    "interval_high",
    "image_interval_low",
    "image_interval_high",
    "images",
    "as_asked",
    "both_right",
    "changed",
    "changed_interval_low",
    "changed_interval_high",
)
"""The keys of a row of `control_rows`, in the order of the table."""


def control_rows(asked: pd.DataFrame, controls: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """One row a control for all questions that it was asked of, then one for the open and one for the closed of them.

    Args:
        asked: a row a question as it is: `answer`, `image`, `closed` (None where nobody knows, which is neither), and
            `correct` (None where the true answer is not known), by the place of the question.
        controls: the same under each control, by its name; questions that it does not apply to are left out, and
            `image` and `closed` are not read.

    Returns:
        Dictionaries with the keys `CONTROL_COLUMNS`, all but `control` and the counts in per cent: the accuracy under
        the control with 95 % bootstrap intervals over questions and over images (so many `images`), that of the same
        questions as asked, the share that is right both times, and the share whose answer is another, with its interval
        over questions. Where true answers are known, it is the questions with one that count; where none is, accuracies
        are None.
    """
    rows = []
    for name, changed in controls.items():
        both = asked.loc[changed.index, ["answer", "correct", "image", "closed"]]
        both = both.assign(answer_then=changed["answer"], correct_then=changed["correct"])
        known = both["correct"].notna() & both["correct_then"].notna()
        both = both[known] if known.any() else both
        parts = {f"{name}, open": both[both["closed"].eq(False)], f"{name}, closed": both[both["closed"].eq(True)]}
        for label, members in {name: both, **parts}.items():
            if len(members):
                rows.append({"control": label, **_row(members)})
    return rows


def _row(both: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(CONTROL_COLUMNS[1:])
    row["questions"], row["images"] = len(both), both["image"].nunique()
    other = (both["answer"] != both["answer_then"]).to_numpy()
    row["changed"] = 100 * float(other.mean())
    row["changed_interval_low"], row["changed_interval_high"] = bootstrap_interval(other)
    if both["correct"].notna().all():
        before, then = (both[column].to_numpy(dtype=np.bool_) for column in ("correct", "correct_then"))
        row["accuracy"] = 100 * float(then.mean())
        row["interval_low"], row["interval_high"] = bootstrap_interval(then)
        row["image_interval_low"], row["image_interval_high"] = image_interval(then, both["image"].to_numpy(dtype=str))
        row["as_asked"] = 100 * float(before.mean())
        row["both_right"] = 100 * float((before & then).mean())
    return row
