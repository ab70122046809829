"""MedICaT (Subramanian et al., 2020): figures of medical papers, with captions and the sentences that refer to them."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.captions import CaptionRecord
from datamodules.files import read_json_lines
from datamodules.problems import Problems
from datamodules.records import Split
from umd.files import UserError

log = logging.getLogger(__name__)

LAYOUT = "{*.jsonl,figures/}"

PUBLISHED = "full_figures"
"""In the published file's name; beside it lie the annotations of subfigures and the references to ROCO's images."""

SPLIT_SEED = 20200513
"""Of the shuffle; not the training seed, so that all seeds share one split."""

HELD_OUT = 1000
"""Figures in validation, and as many in test; at most a tenth of the figures each."""


def read_splits(
    folder: Path, problems: Problems, *, radiology_only: bool = False, inline_references: bool = True
) -> dict[Split, list[CaptionRecord]]:
    """MedICaT in a fixed random split; arguments as in `read_medicat`.

    Raises:
        UserError: The folder does not hold one .jsonl file of figures.
    """
    records = read_medicat(
        find_figures(folder), problems, radiology_only=radiology_only, inline_references=inline_references
    )
    splits = split_medicat(records)
    if len(splits["test"]) < HELD_OUT:
        problems.add(
            f"MedICaT split smaller than the usual {HELD_OUT} for validation and for test",
            f"{len(splits['test'])} each of {len(records)} figures",
        )
    return splits


def find_figures(folder: Path) -> Path:
    """The .jsonl file of the figures: the only one there or, of several, the one that begins with a captioned figure.

    Where several do, the one that is named as published.

    Raises:
        UserError: There is none, or nothing says which of several it is.
    """
    files = sorted(folder.glob("*.jsonl"))
    chosen = files if len(files) == 1 else [file for file in files if _begins_with_figure(file)]
    if len(chosen) > 1:
        chosen = [file for file in chosen if PUBLISHED in file.name] or chosen
    if len(chosen) != 1:
        names = ", ".join(file.name for file in files) or "none"
        told = f", of which {len(chosen)} begin with a figure and its s2_caption" if files else ""
        raise UserError(f"MedICaT: looked in {folder} for one .jsonl file of figures; found {names}{told}")
    if others := [file.name for file in files if file != chosen[0]]:
        log.info("MedICaT: figures read from %s, not from %s", chosen[0].name, ", ".join(others))
    return chosen[0]


def _begins_with_figure(file: Path) -> bool:
    first = next((figure for _, figure in read_json_lines(file, Problems("MedICaT"))), {})
    return all(_text(first, key) for key in ("pdf_hash", "fig_uri", "s2_caption"))


def read_medicat(
    path: Path, problems: Problems, *, radiology_only: bool = False, inline_references: bool = True
) -> list[CaptionRecord]:
    """The figures of MedICaT's JSONL file, in its order; lines that cannot be used are counted.

    Args:
        path: The file.
        problems: Takes lines that are broken or lack a figure name or a caption.
        radiology_only: Leave out figures whose `radiology` is false.
        inline_references: Keep the sentences that refer to a figure as its alternative texts.
    """
    records = []
    for where, figure in read_json_lines(path, problems):
        if not (_text(figure, "pdf_hash") and _text(figure, "fig_uri")):
            problems.add("line without pdf_hash and fig_uri, left out", where)
            continue
        if radiology_only and not figure.get("radiology"):
            continue
        caption = _text(figure, "s2_caption")
        if not caption:
            problems.add("figure without s2_caption, left out", where)
            continue
        references = figure.get("s2orc_references") if inline_references else None
        if references is not None and not isinstance(references, list):
            problems.add("s2orc_references that are no list, not used", where)
            references = None
        alternatives = (" ".join(text.split()) for text in references or () if isinstance(text, str))
        name = f"{figure['pdf_hash']}_{figure['fig_uri']}"
        records.append(
            CaptionRecord(f"medicat/{name}", f"medicat/figures/{name}", caption, tuple(filter(None, alternatives)))
        )
    return records


def _text(figure: Mapping[str, Any], key: str) -> str:
    """A text on one line without outer blanks; "" where there is none."""
    value = figure.get(key)
    return " ".join(value.split()) if isinstance(value, str) else ""


def split_medicat(records: list[CaptionRecord]) -> dict[Split, list[CaptionRecord]]:
    """A fixed shuffle: 1,000 for validation, 1,000 for test (at most a tenth each), the rest to train."""
    held_out = min(HELD_OUT, len(records) // 10)
    shuffled = list(records)
    random.Random(SPLIT_SEED).shuffle(shuffled)
    return {
        "train": shuffled[2 * held_out :],
        "validation": shuffled[:held_out],
        "test": shuffled[held_out : 2 * held_out],
    }
