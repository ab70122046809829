"""Validation carved out of training questions: by image, or by question with all that reword it; in folds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from datamodules.questions import VQARecord
from umd.files import UserError

CarvedBy = Literal["image", "question"]
"""What lies on one side as a whole."""

SPLIT_SEED = 20180516
"""Of the validation split; not the training seed, so that all seeds share one split."""


def carve(
    records: Sequence[VQARecord], fraction: float, by: CarvedBy = "image", fold: int = 0
) -> tuple[list[VQARecord], list[VQARecord]]:
    """Splits rows so that no image, or no question, is on both sides: a share of them goes to the second part.

    Images are one by their names, questions by `asked`. Of all of them, shuffled, each fold holds out the next share,
    so that no two folds hold out the same; sizes differ by one at most. The choice depends on the names of the images,
    the words of the questions and `SPLIT_SEED` alone. Both parts keep at least one.

    Args:
        records: The rows.
        fraction: Of the images, or questions, that are held out; above 0 and below 1.
        by: What lies on one side as a whole.
        fold: Which share is held out, from 0.

    Raises:
        UserError: There are not two images, or questions; or not so many folds.
    """
    unit_of: list[tuple[str, str]]
    unit_of = [(record.image, "") for record in records] if by == "image" else asked(records)
    units = sorted(set(unit_of))
    if len(units) < 2:
        raise UserError(f"cannot carve a validation split out of {len(units)} {by}(s): set validation_fraction=0")
    random.Random(SPLIT_SEED).shuffle(units)
    share = max(fraction * len(units), 1.0)
    folds = int(len(units) / share + 1e-9)
    if fold >= folds:
        whole = f"{len(units)} " + ("images" if by == "image" else "questions, rewordings counted once")
        raise UserError(f"validation_fold must be 0 to {folds - 1}, not {fold}: each holds out {fraction:g} of {whole}")
    start, stop = round(fold * share), round((fold + 1) * share)
    held_out = set(units[start:stop][: len(units) - 1])
    kept = [record for record, unit in zip(records, unit_of, strict=True) if unit not in held_out]
    return kept, [record for record, unit in zip(records, unit_of, strict=True) if unit in held_out]


def asked(records: Sequence[VQARecord]) -> list[tuple[str, str]]:
    """What each row asks: its image, and the words of those that are linked with it, of all the first by alphabet.

    Rows that are not linked ask the same if image and words are equal, case and outer blanks aside.
    """
    words = [record.question.strip().lower() for record in records]
    keys = [
        (record.image, own if record.linked is None else record.linked)
        for record, own in zip(records, words, strict=True)
    ]
    first: dict[tuple[str, str | int], str] = {}
    for key, own in zip(keys, words, strict=True):
        first[key] = min(own, first.get(key, own))
    return [(key[0], first[key]) for key in keys]
