"""`python -m umd.bench`, which is `make bench`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from umd.bench.cases import Case, base, embedded, write_text_weights
from umd.bench.curves import draw, measure_curves
from umd.bench.machine import matrix_rate, start_up
from umd.bench.measured import measure
from umd.bench.tables import show
from umd.bench.throughput import pairs, pictures, write_photographs
from umd.commands.tool_parser import ToolParser
from umd.files import UserError, write_whole, writing


def main(arguments: list[str] | None = None) -> None:
    """Measure, show the tables, write them as JSON, and set them beside earlier ones.

    Raises:
        UserError: a case failed, an earlier file cannot be read, or a case is not known.
    """
    parser = ToolParser(
        prog="make bench",
        description="What a training step costs here, by part, as a multiple of a plain reference's step beside it.",
    )
    parser.add_argument("--scale", choices=("embedded", "base"), default="embedded", help="seconds, or minutes a case")
    parser.add_argument("--cases", nargs="*", help="these alone; none where no name follows")
    parser.add_argument("--steps", type=int, default=5, help="that are counted (default 5)")
    parser.add_argument("--start_up", type=int, default=3, metavar="N", help="rounds of all commands (default 3)")
    parser.add_argument("--throughput", action="store_true", help="pictures read and pairs scored in a second, too")
    parser.add_argument("--curves", type=Path, metavar="PNG", help="cost over work, as a picture: some minutes more")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"), help="the figures (runs/bench.json)")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="an earlier file of figures, to stand beside")
    given = parser.parse_args(arguments)
    old = _read(given.compare) if given.compare else None
    with tempfile.TemporaryDirectory() as folder:
        figures = _figures(given, Path(folder))
        if given.curves:
            figures["curves"] = measure_curves()
            draw(figures["curves"], given.curves)
    with writing(given.out.parent):
        given.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(given.out, json.dumps(figures, indent=1) + "\n")
    show(figures, old)
    sys.stdout.write(f"the figures are in {given.out}\n")


def _figures(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rate = matrix_rate()
    cases = [measure(case, given.steps, rate).as_plain() for case in _cases(given, folder)]
    return {
        "machine": {"torch": torch.__version__, "threads": torch.get_num_threads(), "matrix_rate": rate},
        "cases": cases,
        "throughput": _throughput(folder / "photographs") if given.throughput else {},
        "start_up": start_up(given.start_up) if given.start_up else {},
    }


def _throughput(folder: Path) -> dict[str, float]:
    write_photographs(folder)
    scored = pairs(800)
    return {
        "pictures a CPU-second, 224 pixels": pictures(folder, 224),
        "pictures a CPU-second, 384 pixels": pictures(folder, 384),
        f"pairs a CPU-second, {scored['pairs']} pairs": scored["pairs"] / scored["cpu"],
        "pairs in the time of a reference's step": scored["pairs_per_reference_step"],
    }


def _cases(given: argparse.Namespace, folder: Path) -> list[Case]:
    if given.cases == []:
        return []
    known = embedded() if given.scale == "embedded" else base(folder / "bert")
    unknown = set(given.cases or ()) - {case.name for case in known}
    if unknown:
        raise UserError(f"no case {', '.join(sorted(unknown))}; there are {', '.join(case.name for case in known)}")
    if given.scale == "base":
        write_text_weights(folder / "bert")
    return [case for case in known if given.cases is None or case.name in given.cases]


def _read(path: Path) -> dict[str, Any]:
    try:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--compare {path}: cannot be read ({error})") from error
    if not {"machine", "cases", "start_up"} <= set(figures):
        raise UserError(f"--compare {path}: these are no figures of `make bench`")
    return figures


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"make bench: {error}\n")
        raise SystemExit(2) from error
