"""`umd data --audit`: tables of what was found, and the cases as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.audit import Audit, audit
from datamodules.base import ImageTextDataModule
from datamodules.rewordings import LEAST, NEAR
from datamodules.summary import as_csv
from datamodules.vqa import VQADataModule
from umd.files import UserError, write_whole, writing

AUDIT_FILE = "audit.json"


def questions(data: ImageTextDataModule[Any], option: str) -> VQADataModule:
    """The same data set, which must be one of questions.

    Raises:
        UserError: It is not.
    """
    if not isinstance(data, VQADataModule):
        raise UserError(f"{option} is for data sets of questions, such as VQARAD or OwnVQA; {data.title} is none")
    return data


def show_audit(given: ImageTextDataModule[Any], out: Path | None, console: Console) -> None:
    """Print what is found; with a folder, write the facts as JSON and the cases as CSV.

    Raises:
        UserError: It is no data set of questions, its annotations are not there, or the folder cannot be written.
    """
    data = questions(given, "--audit")
    found = audit(data)
    written = []
    if out is not None:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        for name, rows in found.files.items():
            if rows:
                write_whole(out / name, as_csv(rows))
                written.append(f"{name} ({len(rows):,} rows)")
            else:
                (out / name).unlink(missing_ok=True)  # what an earlier audit found is there no more
        head = {"data": data.title, "root": str(data.root.absolute()), "protocol": data.protocol}
        write_whole(out / AUDIT_FILE, json.dumps(head | found.facts, indent=1, ensure_ascii=False) + "\n")
    for part in shown(found, f"{data.title}, protocol {data.protocol}"):
        console.print(part)
    if out is not None:
        console.print(f"written to {out}: {', '.join([AUDIT_FILE, *written])}")


def shown(found: Audit, title: str) -> Iterator[Table | str]:
    """The facts for the terminal."""
    facts = found.facts
    yield _table(
        f"{title}: the splits as published",
        ("split", "rows", "images", "questions", "repeated", "pairs whose\nanswers differ", "answers"),
        (
            (
                split,
                counts["rows"],
                counts["images"],
                counts["distinct_questions"],
                counts["repeated_rows"],
                counts["repeated_pairs_that_disagree"],
                counts["distinct_answers"],
            )
            for split, counts in facts["splits"].items()
        ),
    )
    further = facts["further_names_of_images"]
    yield (
        "repeated: rows whose image and words occur before. No image was decoded; names that hold the same published "
        f"number are of one image, and so are equal files ({facts['image_files']:,} of {facts['images']:,} are there"
        + (f"; {further:,} further names)" if further else ")")
    )
    if not facts["between"]:
        yield "there is one split, so nothing to compare it with"
        return
    yield _table(
        "Between splits",
        (
            "from",
            "to",
            "images\nin both",
            "rows on\nthem, %",
            "repeated\npairs",
            "twins",
            "rows with\na twin",
            "%",
            "same\nanswer",
        ),
        (
            (
                one["from"],
                one["to"],
                one["shared_images"],
                one["on_shared_images"],
                one["repeated_pairs"],
                one["twins"],
                one["with_twin"],
                one["with_twin_share"],
                one["with_twin_of_the_same_answer"],
            )
            for one in facts["between"]
        ),
    )
    yield (
        "twins: rows of the first that reword a question of the second: the same image, and equal words; or the same "
        f"answer and type, and a similarity of {NEAR}, or {LEAST} where no other question of the first is nearer. They "
        "are likely ones, to be read"
    )
    for one in facts["between"]:
        if "marked_twins" in one:
            yield f"the data set itself marks {one['marked_twins']:,} of them; {one['marked_twins_found']:,} are found"
    yield from _ceilings(facts)


def _ceilings(facts: Mapping[str, Any]) -> Iterator[Table | str]:
    rows = [
        (one["to"], *(group[key] for key in ("group", "rows", "outside_train")), *ceilings)
        for one in facts["between"]
        for group in one.get("answers", ())
        for ceilings in [[value for key, value in group.items() if key.startswith("ceiling")]]
    ]
    heads = ("split", "questions", "answered", "outside\ntrain", "ceiling", "without\ntwins", "without\nshared images")
    if rows:
        yield _table("Answers that train holds, ceilings in per cent", heads, rows)


def _table(title: str, heads: tuple[str, ...], rows: Any) -> Table:  # noqa: ANN401
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head in ("split", "from", "to", "questions") and head else "right")
    for row in rows:
        table.add_row(
            *(
                cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else f"{cell:.1f}"
                for cell in row
            )
        )
    return table
