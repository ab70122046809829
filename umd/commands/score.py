"""`umd score`: anybody's answers to a data set's questions, graded, and laid beside what a fool gets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from umd.commands.early import check_data_early
from umd.commands.questions import data_arguments, read_questions, without_data_options
from umd.commands.tool_parser import ToolParser
from umd.files import UserError, write_whole, writing

_OWN_PREDICTIONS = "predictions.csv"


def main(arguments: list[str]) -> None:
    """Print the tables; with --out and --report write all numbers and a page too."""
    given, data_options = parse(arguments)
    files = [answers_file(path) for path in given.predictions]
    controls = control_files(given.controls)
    if controls and len(files) != 1:
        raise UserError(f"--controls: they are those of one system; give one file of answers, not {len(files)}")
    names = system_names(files)
    if given.vote:
        check_vote(names)
    runs = {name: run for name, (_, run) in zip(names, files, strict=True) if run is not None}
    of_data = data_arguments(given.data, given.root, data_options, next(iter(runs.values()), None))
    check_data_early(of_data)
    # Not above: the data set brings torch and Lightning, which take seconds, and what is mistyped is said first.
    from datamodules.answers import normalize_answer
    from umd.commands.score_tables import shown
    from umd.scoring.answers import read_answers
    from umd.scoring.scored import score

    answers = {
        name: read_answers(file, given.id, given.answer or ("answer" if run else None))
        for name, (file, run) in zip(names, files, strict=True)
    }
    hold_out = given.data is None or given.split == "validation"
    questions, picture = read_questions(of_data, given.split, hold_out)
    under = {name: read_answers(file, given.id, given.answer) for name, file in controls.items()}
    result = score(questions, answers, normalize_answer, set(runs), under, given.vote)
    console = Console()
    for part in shown(result, console.width):
        console.print(part)
    if given.out is not None:
        with writing(given.out):
            given.out.mkdir(parents=True, exist_ok=True)
        written = result.files()
        for name, text in written.items():
            write_whole(given.out / name, text)
        console.print(f"written to {given.out}: {', '.join(written)}")
    if given.report is not None:
        from umd.scoring.report import report  # not above: matplotlib takes a while, and few ask for it

        with writing(given.report):
            given.report.parent.mkdir(parents=True, exist_ok=True)
        write_whole(given.report, report(result, picture, given.images, f"umd score, umd {version('umd')}"))
        console.print(f"report: {given.report}")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What was typed, and the options of the data set among it (`--data.KEY VALUE`).

    Raises:
        UserError: an option of the data set has no value, or a file is not there.
    """
    own, of_data = without_data_options(arguments)
    parser = ToolParser(
        prog="umd score",
        allow_abbrev=False,
        description="Grade the answers of any system to a data set's questions. Rows are matched by question id, or by "
        "image and question, never by order. Several files are compared in pairs, question by question.",
        epilog="Options of the data set as elsewhere: --data.protocol paper, --data.KEY VALUE.",
    )
    parser.add_argument(
        "predictions", nargs="+", type=Path, help="CSV, JSON or JSON lines with the answers; or the folder of a test"
    )
    parser.add_argument("--data", help="the data set: NAME of configs/data/NAME.yaml, a config, or a class")
    parser.add_argument("--root", help="folder of the data set")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="default: test")
    parser.add_argument("--id", metavar="COLUMN", help="column of question ids, if its name does not say so")
    parser.add_argument("--answer", metavar="COLUMN", help="column of answers, if its name does not say so")
    parser.add_argument(
        "--controls",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="the same system's answers to the same questions asked otherwise: blank=b.csv other=c.csv twins=t.csv",
    )
    parser.add_argument(
        "--vote", action="store_true", help="with an ensemble: the answer that most of three or more files give"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write scores.json and CSVs there")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all of it as one page (HTML)")
    parser.add_argument(
        "--images",
        type=int,
        nargs="?",
        const=50,
        default=0,
        metavar="N",
        help="show N images with their questions in the report (50 if N is not given), most wrong answers first",
    )
    given = parser.parse_args(own)
    if given.images and given.report is None:
        raise UserError("--images: pictures belong in a report: say --report FILE too")
    return given, of_data


def answers_file(path: Path) -> tuple[Path, Path | None]:
    """The file of answers that a path means, and the folder of the test that left it; None for anybody else's.

    Raises:
        UserError: there is none.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or path.name == "results.json":
        if not (folder / _OWN_PREDICTIONS).is_file():
            raise UserError(f"'{path}' has no {_OWN_PREDICTIONS}: test it first (umd test --ckpt_path ...)")
        return folder / _OWN_PREDICTIONS, folder
    if not path.is_file():
        raise UserError(f"there is no file '{path}'")
    of_a_test = path.name == _OWN_PREDICTIONS and (folder / "results.json").is_file()
    return path, folder if of_a_test else None


def check_vote(names: Sequence[str]) -> None:
    """Sees to it that there is something to vote on.

    Raises:
        UserError: there are less than three systems, or one is called as the ensemble is.
    """
    if len(names) < 3:
        raise UserError(f"--vote: among {len(names)} systems the first one would always win: give three files or more")
    if "vote" in names:
        raise UserError("--vote: a file is called 'vote', as the ensemble is: rename it")


def control_files(given: Sequence[str]) -> dict[str, Path]:
    """The files of answers under controls, by the names of these.

    Raises:
        UserError: one is not of the form NAME=FILE, has the name of another, or its file is not there.
    """
    files: dict[str, Path] = {}
    for one in given:
        name, _, path = one.partition("=")
        if not name.strip() or not path:
            raise UserError(f"--controls: '{one}' is not of the form NAME=FILE, such as blank=blank.csv")
        if name in files:
            raise UserError(f"--controls: '{name}' is given twice")
        if not Path(path).is_file():
            raise UserError(f"--controls: {name}: there is no file '{path}'")
        files[name] = Path(path)
    return files


def system_names(files: Sequence[tuple[Path, Path | None]]) -> list[str]:
    """The shortest names that tell the systems apart: of a test its folder, of another file the file without ending.

    Raises:
        UserError: a file is given twice.
    """
    if len({file.resolve() for file, _ in files}) != len(files):
        raise UserError("a file is given twice")
    from umd.commands.compare import shortest_ends

    paths = [(run or file.with_suffix("")).resolve() for file, run in files]
    return shortest_ends(paths if len(set(paths)) == len(paths) else [file.resolve() for file, _ in files])
