"""The command line of `umd reproduce`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from umd.commands.configs import shipped_folder
from umd.commands.tool_parser import ToolParser
from umd.files import UserError, write_whole, writing
from umd.reproduce.board import Board
from umd.reproduce.code import Code
from umd.reproduce.experiment import Experiment
from umd.reproduce.outcome import Outcome
from umd.reproduce.plan import Plan, make_plan
from umd.reproduce.run import PROGRAM, run, run_one
from umd.reproduce.scales import CAPTIONS, PAPER_CAPTIONS, PHANTOM, TESTED, TITLES, WITH_SLAKE, Scale, Setting, Source
from umd.reproduce.script import shell_script, snakefile
from umd.reproduce.steps import Step, Workspace
from umd.reproduce.tables import EXPERIMENTS

PAPER_DEVICES = 3
PLACEHOLDER = Path("DATA_ROOT")

_EPILOG = """\
Every step is a command that --dry_run prints and that can be run by hand. Steps that are done are not run again,
whichever table asked for them; one that was interrupted goes on from its last checkpoint; one that fails is reported
and the others go on. Results go to OUT/NAME.{md,csv,json,png}, runs to OUT/runs, what they print to OUT/logs."""


def main(arguments: list[str]) -> None:
    """Make a table or figure.

    Raises:
        SystemExit: with code 1 where a step failed.
    """
    parser = ToolParser(
        prog="umd reproduce",
        description="Make a table or figure of the papers: train what it needs, test, and put ours beside theirs.",
        epilog="\n".join([*(f"  {name:<20} {e.title}" for name, e in EXPERIMENTS.items()), "", _EPILOG]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=list(EXPERIMENTS), metavar="NAME", help="a table or figure, see below")
    parser.add_argument(
        "--scale",
        choices=["embedded", "small", "paper"],
        help="embedded: tiny encoders on phantom data (default without --data_root); small: real data on two CPU "
        "cores; paper: the papers' encoders and hyper-parameters (default with --data_root)",
    )
    parser.add_argument("--data_root", type=Path, help="folder with vqa_rad/, slake/, vqa_med_2019/, roco/, melinda/")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows of the table (default: all, fewer if embedded)")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="data sets (default: those in DATA_ROOT)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of calibration and fine-tuning (default: 0)")
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=["clean", "paper"],
        default=None,
        help="(default: both, side by side; of rivals, ablations and figures clean)",
    )
    parser.add_argument(
        "--pretrain_on",
        choices=["captions", "task"],
        help="captions (default where DATA_ROOT holds some), or task: the task's training pairs",
    )
    parser.add_argument(
        "--captions",
        nargs="+",
        choices=list(CAPTIONS),
        metavar="NAME",
        help=f"captions to pre-train on, of {', '.join(CAPTIONS)} (default: those in DATA_ROOT; medpix at the small "
        "scale alone, slake never); slake goes alone or with medpix",
    )
    parser.add_argument(
        "--left_out",
        nargs="*",
        choices=list(TESTED),
        metavar="NAME",
        help="data sets whose validation and test images are left out of captions (default: those in DATA_ROOT)",
    )
    parser.add_argument(
        "--devices", type=int, help=f"devices of a training (default: {PAPER_DEVICES} at the paper scale, else 1)"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results (default: results)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry_run", action="store_true", help="print the commands as a shell script, run nothing")
    instead.add_argument(
        "--snakefile", type=Path, metavar="FILE", help="write the steps as rules for Snakemake, run nothing"
    )
    instead.add_argument("--step", metavar="STAGE/NAME", help="run this step alone; what a rule of the Snakefile does")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    plan = _plan(given)
    workspace = Workspace(_configs(), given.out, Code(Path(__file__).parents[2]))
    command = shlex.join(["umd", "reproduce", *arguments])
    head = [plan.experiment.title, plan.setting.describe(), _pretraining(plan), *_left_out(plan, given)]
    if given.dry_run:
        console.print(shell_script(plan, workspace, [*head, f"Written by: {command}"]), markup=False, end="")
        return
    if given.snakefile:
        with writing(given.snakefile):
            given.snakefile.parent.mkdir(parents=True, exist_ok=True)
            words = _words(plan, given.out)
            head.append(f"When all is done, this prints the table: {shlex.join(['umd', *words])}")
            write_whole(given.snakefile, snakefile(plan, workspace, [*PROGRAM, *words, "--step"], head))
        console.print(f"written: {given.snakefile}, {len(plan.steps)} steps", markup=False)
        return
    if given.step:
        with writing(workspace.out):
            _make_one(given.step, plan, workspace, console)
        return
    console.print("\n".join(head[:2]), style="bold", markup=False)
    console.print("\n".join(head[2:]), markup=False)
    with writing(workspace.out):
        _make(plan, workspace, command, console)


def _plan(given: argparse.Namespace) -> Plan:
    experiment = EXPERIMENTS[given.experiment]
    scale: Scale = given.scale or ("embedded" if given.data_root is None else "paper")
    root: Path | None = given.data_root
    if scale == "embedded" and root is not None:
        raise UserError("the embedded scale draws its own data: leave --data_root out, or choose another --scale")
    if scale != "embedded" and root is None:
        if not given.dry_run:
            raise UserError(f"the {scale} scale needs real data: --data_root FOLDER")
        root = PLACEHOLDER
    if given.devices is not None and given.devices < 1:
        raise UserError(f"--devices is {given.devices}; it must be at least 1")
    if len(set(given.seeds)) != len(given.seeds):
        raise UserError("--seeds names a seed twice")
    if not all(0 <= seed < 2**32 for seed in given.seeds):
        raise UserError(f"--seeds {' '.join(map(str, given.seeds))}: a seed lies between 0 and {2**32 - 1}")
    captions = _captions(scale, root, given.captions)
    setting = Setting(
        scale=scale,
        data_root=root,
        devices=given.devices or (PAPER_DEVICES if scale == "paper" else None),
        pretrain_on=_corpus(root, captions, given.pretrain_on),
        captions=captions,
        left_out=_left_out_of_captions(scale, root, given.left_out),
    )
    default = experiment.default_rows if scale == "embedded" and experiment.default_rows else None
    return make_plan(
        experiment,
        setting,
        rows=given.rows or default or [row.name for row in experiment.rows],
        datasets=_datasets(experiment, setting, given.datasets),
        protocols=given.protocol or (["clean"] if experiment.figure else experiment.protocols),
        seeds=given.seeds[:1] if experiment.figure else given.seeds,
    )


def _captions(scale: Scale, root: Path | None, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The captions to pre-train on: those that are asked for, or are there and belong to the scale.

    Raises:
        UserError: one that is asked for is not there, or does not go with the others.
    """
    if wanted and "slake" in wanted and frozenset(wanted) not in WITH_SLAKE:
        raise UserError(f"--captions {' '.join(wanted)}: slake goes alone, or with medpix and nothing else")
    if root == PLACEHOLDER or root is None:
        return tuple(wanted or PAPER_CAPTIONS)
    if missing := [name for name in wanted or () if not (root / name).is_dir()]:
        raise UserError(f"--captions {missing[0]}: there is no folder {root / missing[0]}")
    if wanted:
        return tuple(wanted)
    skipped = {"slake"} if scale == "small" else {"slake", "medpix"}
    if (root / "roco").is_dir():
        skipped.add("rocov2")  # which holds most of ROCO again
    return tuple(name for name in CAPTIONS if name not in skipped and (root / name).is_dir())


def _left_out_of_captions(scale: Scale, root: Path | None, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The data sets whose images are left out of captions: those that are asked for, or are there.

    All tables leave out the same, so that they share their pre-trainings.
    """
    if scale == "embedded" or root is None:
        return ()
    return tuple(name for name in TESTED if (name in wanted if wanted is not None else _is_there(root, name)))


def _is_there(root: Path, name: str) -> bool:
    return root == PLACEHOLDER or (root / name).is_dir()


def _corpus(root: Path | None, captions: Sequence[str], wanted: Source | None) -> Source:
    """What pre-training reads.

    Raises:
        UserError: captions are asked for, and are not there.
    """
    if wanted == "captions" and not captions:
        raise UserError(f"no captions to pre-train on: looked in {root} for {', '.join(CAPTIONS)}")
    return wanted or ("captions" if captions else "task")


def _datasets(experiment: Experiment, setting: Setting, wanted: Sequence[str] | None) -> Sequence[str]:
    """The data sets that are asked for, or that are there.

    Raises:
        UserError: one that is asked for is not there, or none is.
    """
    if setting.scale == "embedded":
        return wanted or [PHANTOM]
    root = setting.data_root
    assert root is not None
    if root == PLACEHOLDER:
        return wanted or experiment.datasets
    there = [name for name in experiment.datasets if (root / name).is_dir()]
    missing = [name for name in wanted or experiment.datasets if name not in there and name in experiment.datasets]
    if missing and (wanted or not there):
        held = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        holds = f"it holds {', '.join(held[:10]) or 'nothing'}" if root.is_dir() else "there is no such folder"
        raise UserError(f"no data for {', '.join(missing)}: looked for {root / missing[0]}; {holds}")
    if experiment.figure and not wanted and experiment.name != "figure5":
        return there[:1]
    return wanted or there


def _pretraining(plan: Plan) -> str:
    """Where pre-training takes its pairs from, in a line."""
    if plan.setting.scale == "embedded":
        return "pre-training: on phantom captions"
    if plan.setting.pretrain_on == "captions":
        names = " and ".join(CAPTIONS[name] for name in plan.setting.captions)
        without = ", ".join(TITLES[name] for name in plan.setting.left_out)
        line = f"pre-training: on the captions of {names} in {plan.setting.data_root}"
        return f"{line}, without the validation and test images of {without}" if without else line
    return (
        "pre-training: there are no captions in the data root, so it is on the task's own training pairs "
        "(questions for captions, protocol clean)"
    )


def _configs() -> Path:
    """The folder of umd's own configs, as short as it can be written here."""
    here, shipped = Path("configs"), shipped_folder()
    return here if here.is_dir() and here.samefile(shipped) else shipped


def _left_out(plan: Plan, given: argparse.Namespace) -> Iterator[str]:
    """A line on the data sets of a table that the data root does not hold."""
    root = plan.setting.data_root
    if root is None or root == PLACEHOLDER or given.datasets:
        return
    if missing := [name for name in plan.experiment.datasets if not (root / name).is_dir()]:
        yield f"left out, since {root} does not hold them: {', '.join(missing)}"


def _words(plan: Plan, out: Path) -> list[str]:
    """The words behind `umd` for this very plan, whatever the data root holds by then."""
    setting, benchmarks = plan.setting, [cell.benchmark for cell in plan.cells]
    protocols = dict.fromkeys(benchmark.protocol for benchmark in benchmarks if benchmark.protocol)
    words = ["reproduce", plan.experiment.name, "--scale", setting.scale, "--out", str(out)]
    words += ["--rows", *dict.fromkeys(cell.row.name for cell in plan.cells)]
    words += ["--datasets", *dict.fromkeys(benchmark.dataset for benchmark in benchmarks)]
    words += ["--seeds", *dict.fromkeys(str(benchmark.seed) for benchmark in benchmarks)]
    words += ["--pretrain_on", setting.pretrain_on]
    if setting.scale != "embedded" and setting.pretrain_on == "captions":
        words += ["--captions", *setting.captions, "--left_out", *setting.left_out]
    words += ["--protocol", *protocols] if protocols else []
    words += ["--data_root", str(setting.data_root)] if setting.data_root else []
    words += ["--devices", str(setting.devices)] if setting.devices else []
    return words


def _make_one(name: str, plan: Plan, workspace: Workspace, console: Console) -> None:
    found = [step for step in plan.steps if workspace.full_name(step) == name]
    if not found:
        raise UserError(
            f"--step {name}: there is no such step; where the Snakefile was written by other code, or with "
            "other configs, write it again"
        )
    outcome = run_one(found[0], plan.steps, workspace, Board(console))
    if outcome.state != "done":
        raise SystemExit(1)


def _make(plan: Plan, workspace: Workspace, command: str, console: Console) -> None:
    from umd.reproduce.report import up_to_date, write

    stem = workspace.out / plan.experiment.name
    if up_to_date(plan, workspace, stem):
        console.print((stem.with_suffix(".md")).read_text(encoding="utf-8"), markup=False, soft_wrap=True)
        console.print(f"all {len(plan.steps)} steps were done before: nothing was run", markup=False)
        return
    try:
        outcomes = run(plan.steps, workspace, Board(console))
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here", markup=False)
        raise SystemExit(130) from None
    failed = [step for step, outcome in outcomes.items() if outcome.state == "failed"]
    if all(step.command == "data" for step in failed) and not any(workspace.done(cell.step) for cell in plan.cells):
        looked = ", ".join(f"{step} failed (see {workspace.log(step)})" for step in failed)
        console.print(
            f"no row can be tested: {looked}. Nothing was trained; the same command looks again.", markup=False
        )
        raise SystemExit(1)
    paths = write(plan, workspace, stem, command)
    if stem.with_suffix(".md") in paths:
        console.print((stem.with_suffix(".md")).read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    console.print(f"written: {', '.join(str(path) for path in paths) or 'nothing'}", markup=False)
    lacking = [step for step, outcome in outcomes.items() if outcome.state != "done"]
    if lacking:
        console.print(_failures(lacking, outcomes, workspace), markup=False)
        raise SystemExit(1)


def _failures(lacking: Sequence[Step], outcomes: dict[Step, Outcome], workspace: Workspace) -> str:
    lines = [f"{len(lacking)} of {len(outcomes)} steps have no result:"]
    for step in lacking:
        outcome = outcomes[step]
        where = f" (see {workspace.log(step)})" if outcome.state == "failed" else f" ({outcome.reason})"
        lines.append(f"  {step}: {outcome.state}{where}")
    return "\n".join([*lines, "The same command tries them again."])
