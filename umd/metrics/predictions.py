"""What `predictions.csv` says of each test sample, as tables that can be laid on each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd.files import UserError
from umd.metrics.paired import Answers

_FLAGS: Final = ("correct", "closed", "has_twin")


def read_table(path: Path) -> pd.DataFrame:
    """A CSV whose texts are as they are: an answer may well be "n/a"."""
    return pd.read_csv(path, keep_default_na=False)


def read_predictions(folder: Path) -> pd.DataFrame | None:
    """The outcomes that a test left in a folder, of the samples whose truth is known.

    None where it left none, or none that are right or wrong.
    """
    path = folder / "predictions.csv"
    if not path.is_file():
        return None
    table = read_table(path)
    if "correct" not in table:
        return None
    judged = table[table["correct"].astype(str) != ""]  # of the others nobody knows
    # Where one cell of a column is empty all are texts, and "False" would be true.
    flags = {name: judged[name].astype(str).str.lower() == "true" for name in _FLAGS if name in judged}
    return judged.assign(**flags).reset_index(drop=True) if len(judged) else None


def same_samples(tables: Sequence[pd.DataFrame]) -> bool:
    """Whether these are the outcomes of the same samples, in the same order."""
    names = tables[0].iloc[:, 1].astype(str).tolist()
    return all(table.iloc[:, 1].astype(str).tolist() == names for table in tables)


def answers_of(tables: Sequence[pd.DataFrame]) -> Answers:
    """Whether each sample is answered, (S, N) by table and sample, from tables of the same samples."""
    return np.stack([table["correct"].to_numpy(dtype=bool) for table in tables])


def images_of(table: pd.DataFrame) -> NDArray[np.str_] | None:
    """The name of each row's image; None where the table does not say it."""
    return table["image"].to_numpy(dtype=str) if "image" in table else None


def question_groups(asked: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """The groups of questions that a report shows, as members by place in the split; empty ones are left out.

    Samples that are no questions are one group, "accuracy". "twin-free" is there only where some questions have a
    twin and some do not.
    """
    if "closed" not in asked:
        return {"accuracy": np.ones(len(asked), dtype=bool)}
    closed = asked["closed"].to_numpy(dtype=bool)
    groups = {"open": ~closed, "closed": closed, "overall": np.ones(len(closed), dtype=bool)}
    twin_free = ~asked["has_twin"].to_numpy(dtype=bool)
    if not twin_free.all():
        groups["twin-free"] = twin_free
    return {name: members for name, members in groups.items() if members.any()}


def check_agreement(folder: Path | str, reported: float, correct: NDArray[np.bool_], group: str) -> None:
    """Refuse predictions that are not those of the report beside them.

    Args:
        folder: that holds both, or the name of the run, for the message.
        reported: the accuracy in per cent.
        correct: (N,) of the same group.
        group: its name.

    Raises:
        UserError: they say different things.
    """
    if abs(reported - 100 * correct.mean()) > 1e-6:
        raise UserError(f"{folder}: predictions.csv and results.json disagree on '{group}'")
