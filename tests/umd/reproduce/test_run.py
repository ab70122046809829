"""The runner: what is done is not run again, what was interrupted goes on, what fails takes nothing else along."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

import umd.reproduce.run as runner
from tests.umd.reproduce.test_plan import plan, workspace
from umd.files import UserError
from umd.reproduce.board import Board, time_left
from umd.reproduce.outcome import Outcome
from umd.reproduce.scales import Setting
from umd.reproduce.steps import Step, Workspace

# Stands in for `umd`: notes how it was called, and leaves what a training leaves, or fails.
PROGRAM = """
import json, pathlib, sys
words = sys.argv[2:]
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(words) + "\\n")
given = dict(zip(words, words[1:]))
if "--ckpt_path" in given and words[0] == "fit":
    folder = pathlib.Path(given["--ckpt_path"]).parent.parent
elif words[0] == "data":
    folder = pathlib.Path(given["--out"])
else:
    stage = "pretrain" if "pretrain.yaml" in words[2] else "calibrate" if "calibrate.yaml" in words[2] else "vqa"
    folder = pathlib.Path(given["--runs"]) / stage / given["--name"] / ("" if words[0] == "fit" else words[0])
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
(folder / "checkpoints" / "last.ckpt").write_text("")
if pathlib.Path(sys.argv[1] + ".fail").exists() and pathlib.Path(sys.argv[1] + ".fail").read_text() in words:
    print("the last line of a failed training")
    raise SystemExit(3)
(folder / "results.json").write_text("{}")
splits = {} if pathlib.Path(sys.argv[1] + ".untestable").exists() else {"test": {}}
(folder / "summary.json").write_text(json.dumps({"splits": splits}))
"""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the stand-in for `umd` notes its calls, one JSON list a line."""
    (tmp_path / "program.py").write_text(PROGRAM)
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setattr(runner, "PROGRAM", (sys.executable, "-S", str(tmp_path / "program.py"), str(calls)))
    return calls


def steps() -> list[Step]:
    return plan("table1", Setting(), rows=["umd", "m3ae", "blank_image"], protocols=["clean"], seeds=[0]).steps


def run(here: Workspace) -> tuple[dict[Step, Outcome], str]:
    shown = io.StringIO()
    return runner.run(steps(), here, Board(Console(file=shown, width=200))), shown.getvalue()


def test_each_step_runs_once_in_order_and_never_again(called: Path, tmp_path: Path) -> None:
    outcomes, _ = run(workspace(tmp_path))
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    calls = [json.loads(line) for line in called.read_text().splitlines()]
    assert [call[0] for call in calls] == [step.command for step in steps()]
    assert len(calls) == len(steps())
    starts = [call[call.index("--model.init_from") + 1] for call in calls if "--model.init_from" in call]
    assert all(Path(start).is_file() for start in starts)
    run(workspace(tmp_path))
    assert len(called.read_text().splitlines()) == len(steps())


def test_a_failure_stops_what_starts_from_it_and_nothing_else(called: Path, tmp_path: Path) -> None:
    here = workspace(tmp_path)
    calibrate = next(step for step in steps() if step.stage == "calibrate")
    Path(f"{called}.fail").write_text(here.name(calibrate))
    outcomes, shown = run(here)
    states = {str(step): outcome.state for step, outcome in outcomes.items()}
    assert states.pop(str(calibrate)) == "failed"
    assert [name for name, state in states.items() if state != "done"] == [
        str(step) for step in steps() if step.source == calibrate or (step.source and step.source.source == calibrate)
    ]
    assert "the last line of a failed training" in shown
    assert "exit code 3" in outcomes[calibrate].reason
    Path(f"{called}.fail").unlink()
    outcomes, _ = run(here)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}


def test_nothing_is_trained_on_data_that_cannot_be_tested_on(called: Path, tmp_path: Path) -> None:
    Path(f"{called}.untestable").touch()
    outcomes, _ = run(workspace(tmp_path))
    states = {step.stage: outcome.state for step, outcome in outcomes.items()}
    assert (states["data"], states["calibrate"], states["vqa"]) == ("failed", "not run", "not run")
    assert "no test split" in next(iter(outcomes.values())).reason
    outcomes, _ = run(workspace(tmp_path))
    assert next(iter(outcomes.values())).state == "failed"


def test_an_interrupted_training_goes_on_from_its_checkpoint(called: Path, tmp_path: Path) -> None:
    here = workspace(tmp_path)
    first, second = [step for step in steps() if step.stage == "pretrain"]
    here.checkpoint(first).parent.mkdir(parents=True)
    here.checkpoint(first).touch()
    mark = runner.log_of(first, here).with_suffix(".started")
    mark.parent.mkdir(parents=True)
    mark.touch()
    here.folder(second).mkdir(parents=True)  # killed before its first checkpoint
    run(here)
    calls = [json.loads(line) for line in called.read_text().splitlines() if "fit" in line]
    assert ["fit", "--ckpt_path", str(here.checkpoint(first))] in calls
    (anew,) = [call for call in calls if here.name(second) in call]
    assert anew[-2:] == ["--overwrite", "true"]


def test_a_training_that_was_started_by_hand_is_not_taken_for_a_step(called: Path, tmp_path: Path) -> None:
    here = workspace(tmp_path)
    first = next(step for step in steps() if step.stage == "pretrain")
    here.checkpoint(first).parent.mkdir(parents=True)
    here.checkpoint(first).write_text("of other settings")
    outcomes, _ = run(here)
    assert "did not start: move it away" in outcomes[first].reason
    assert here.checkpoint(first).read_text() == "of other settings"


def test_two_calls_in_one_folder_are_refused(called: Path, tmp_path: Path) -> None:
    here = workspace(tmp_path)
    with runner._alone(here.out), pytest.raises(UserError, match="another umd reproduce works in"):
        run(here)
    assert called.read_text() == ""


def test_the_time_left_is_from_this_process_own_pace() -> None:
    progress = {"step": 60, "steps": 100, "started_at_step": 40, "seconds": 10.0}
    assert time_left(progress) == 20
    assert time_left({**progress, "step": 40}) is None
