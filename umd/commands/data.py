"""`umd data`: what a data set holds under the settings in use, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from rich.console import Console
from rich.markup import escape

from datamodules.base import ImageTextDataModule
from datamodules.summary import as_csv, shown
from umd.commands.audit import show_audit
from umd.commands.configs import settings_in, with_found_configs
from umd.commands.contact_sheet import check_picture, draw
from umd.commands.exported_splits import write_splits
from umd.commands.leaks import SHARED_FILE, compare
from umd.commands.messages import show_messages
from umd.commands.parser_errors import parser_for
from umd.commands.short_names import learn_short_names
from umd.files import UserError, write_whole, writing

SUMMARY_FILE = "summary.json"

SAMPLES = 6
"""How many samples a contact sheet shows."""

_USAGE = (
    "umd data --config FILE [--config FILE ...] [--data.KEY VALUE ...] [--needs_test] [--against ...] [--audit] "
    "[--export_split FOLDER] [--out FOLDER] [--picture FILE]"
)
_NAMES_DATA = {"--config", "--data", "--data.class_path", "--data.help", "--help", "-h"}
_DESCRIPTION = "Show what a data set holds. Configs may be those of a training: only their part 'data' is used."


def main(arguments: list[str]) -> None:
    """Print the tables; with --out write the same facts, and a row for each test question, to files.

    Raises:
        UserError: What is asked for does not go together, or --needs_test and there is nothing to test on.
    """
    show_messages()
    asked = parse(arguments)
    data, out, picture = asked.data, asked.out, asked.picture
    if asked.audit or asked.export_split is not None:
        if asked.against or picture is not None:
            raise UserError("--audit and --export_split look at no image: give --against and --picture in another call")
        if asked.needs_test:
            raise UserError("--needs_test goes with the tables: give --audit and --export_split in another call")
        data.images.cache = None  # else preparing the data would fill it, with an image decoded for each entry
        data.prepare_data()
        if asked.audit:
            show_audit(data, out, Console())
        if asked.export_split is not None:
            write_splits(data, asked.export_split, Console())
        return
    if picture is not None:
        check_picture(picture)
    data.prepare_data()
    if asked.needs_test:
        data.look_at("test")
    summary = data.summary()
    first = next(iter(summary.splits))
    (seen,) = data.samples(first, 1)
    summary.tables.append(f"a training reads of {first} row {seen.sample_id}: {escape(' '.join(seen.tokens))}")
    compared = compare(data, asked.against)
    facts = {
        "class": f"{type(data).__module__.split('.')[0]}.{type(data).__name__}",
        "root": str(data.root.absolute()),
        "description": data.description,
        "splits": summary.splits,
        "test_file": summary.test_file,
        **summary.facts,
    }
    if compared:
        facts["shared_images"] = [one.facts() for one in compared]
    written = [SUMMARY_FILE, *([summary.test_file] if summary.test_file else [])]
    if out is not None:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        if summary.test_file is not None:
            write_whole(out / summary.test_file, as_csv(summary.test_rows))
        if rows := [row for one in compared for row in one.rows()]:
            write_whole(out / SHARED_FILE, as_csv(rows))
            written.append(SHARED_FILE)
        write_whole(out / SUMMARY_FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    console = Console()
    for table in shown(summary, data.description):
        console.print(table)
    for table in (table for one in compared for table in one.shown(data.title)):
        console.print(table)
    if picture is not None:
        draw(data.samples(first, SAMPLES), f"{data.title}, {first}: as on disk, and as a training sees it", picture)
        console.print(f"samples drawn in {picture}")
    if out is not None:
        console.print(f"written to {out}: {', '.join(written)}")


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        data: The data module that is described.
        out: The folder to write to.
        against: The data sets to compare with.
        picture: The picture to draw.
        needs_test: Whether data without a usable test split is an error.
        audit: Whether to look for what makes a test easier than it looks, in the place of the tables.
        export_split: The folder to write the ids of every protocol's splits to, in the place of the tables.
    """

    data: ImageTextDataModule[Any]
    out: Path | None
    against: list[str]
    picture: Path | None
    needs_test: bool
    audit: bool
    export_split: Path | None


def parse(arguments: list[str]) -> Asked:
    """What configs and options ask for.

    Raises:
        UserError: A config is not there; or a config is no YAML, or nothing says which data module.
    """
    learn_short_names()
    parser = parser_for("data")(prog="umd data", usage=_USAGE, description=_DESCRIPTION)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="file with a part 'data'; later ones win")
    parser.add_lightning_class_args(ImageTextDataModule, "data", subclass_mode=True)
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="CLASS=FOLDER",
        default=[],
        help="other data sets, such as VQARAD=FOLDER: report the images that are in both",
    )
    parser.add_argument("--out", help=f"folder for {SUMMARY_FILE} and a CSV with one row a test question")
    parser.add_argument("--picture", metavar="FILE.png", help="draw a few samples, as on disk and as in training")
    parser.add_argument(
        "--needs_test", action="store_true", help="end with an error, and write nothing, where there is no test split"
    )
    parser.add_argument(
        "--audit",
        action="store_true",
        help="of questions: twins, repeated pairs, images in several splits, answers outside train; decodes no image",
    )
    parser.add_argument(
        "--export_split", metavar="FOLDER", help="of questions: write the ids of the splits of every protocol"
    )
    kept = _data_alone(arguments)
    if not _NAMES_DATA.intersection(argument.partition("=")[0] for argument in kept):
        raise UserError("which data set? Give a --config with a part 'data', or --data CLASS, such as PhantomVQA")
    given = parser.parse_args(kept)
    data: ImageTextDataModule[Any] = parser.instantiate(given).data
    out, picture, export = (
        None if path is None else Path(path).expanduser() for path in (given.out, given.picture, given.export_split)
    )
    return Asked(data, out, given.against, picture, given.needs_test, given.audit, export)


def _data_alone(arguments: Sequence[str]) -> list[str]:
    """The same arguments, each config replaced by its part `data` (or left out where it has none)."""
    kept: list[str] = []
    for argument in with_found_configs(arguments):
        option, _, given = argument.partition("=")
        if option != "--config":
            kept.append(argument)
            continue
        content = settings_in(given)
        if isinstance(content, dict) and content.get("data") is not None:
            kept.append(f"--config={json.dumps({'data': content['data']})}")
    return kept
