"""A few questions, without a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from umd.scoring.questions import Questions


def questions(rows: Sequence[Mapping[str, Any]], **more: Any) -> Questions:  # noqa: ANN401
    """Each row has `answer` and what else matters to the test; open and without twin, unless told."""
    defaults = {"closed": False, "has_twin": False}
    table = pd.DataFrame(
        [
            defaults
            | {"question_id": str(place), "image": f"images/{place // 2}.jpg", "question": f"What is {place}?"}
            | {"accepted": (row["answer"],) if row["answer"] else ()}
            | {key: value for key, value in row.items() if key != "answer"}
            for place, row in enumerate(rows)
        ]
    )
    return Questions("sample, test", table, **more)
