"""The runner: what is done is not run again, what was interrupted goes on, what fails takes nothing else along."""

from __future__ import annotations

import io
import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

import umd.reproduce.run as runner
from tests.umd.reproduce.test_plan import plan, workspace
from umd.files import UserError
from umd.reproduce.board import Board, time_left
from umd.reproduce.command import main
from umd.reproduce.outcome import Outcome
from umd.reproduce.scales import Setting
from umd.reproduce.steps import Step, Workspace

# Stands in for `umd`: notes how it was called, and leaves what a training leaves, or fails.
PROGRAM = """
import json, pathlib, sys
words = sys.argv[2:]
if "--print_config" in words:
    print(pathlib.Path(sys.argv[1] + ".settings").read_text())
    raise SystemExit
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
if pathlib.Path(sys.argv[1] + ".fail").exists() and pathlib.Path(sys.argv[1] + ".fail").read_text() in words:
    print("the last line of a failed training")
    raise SystemExit(3)
untestable = pathlib.Path(sys.argv[1] + ".untestable")
if "--needs_test" in words and untestable.exists() and untestable.read_text() in folder.name:
    print("there is no test split")
    raise SystemExit(2)
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
(folder / "checkpoints" / "last.ckpt").write_text("")
(folder / "results.json").write_text("{}")
(folder / "summary.json").write_text("{}")
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


def run(here: Workspace, wanted: list[Step] | None = None) -> tuple[dict[Step, Outcome], str]:
    shown = io.StringIO()
    return runner.run(wanted or steps(), here, Board(Console(file=shown, width=200))), shown.getvalue()


def rivals() -> list[Step]:
    """Two data sets whose rows start from one pre-training on captions."""
    setting = Setting("small", Path("/data"), captions=("medpix",))
    return plan("rivals", setting, rows=["plain", "sam"], protocols=["clean"], seeds=[0]).steps


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
    for wanted in (steps(), rivals()):
        outcomes, shown = run(workspace(tmp_path), wanted)
        assert {(step.command, outcome.state) for step, outcome in outcomes.items()} >= {("data", "failed")}
        assert {outcome.state for step, outcome in outcomes.items() if step.command != "data"} == {"not run"}
        assert "there is no test split" in next(iter(outcomes.values())).reason
        assert "not run" not in shown, "one line for all, which the caller prints"
    assert {json.loads(line)[0] for line in called.read_text().splitlines()} == {"data"}


def test_data_that_cannot_be_tested_on_leaves_other_data_alone(called: Path, tmp_path: Path) -> None:
    Path(f"{called}.untestable").write_text("slake")
    outcomes, shown = run(workspace(tmp_path), rivals())
    states = {str(step): outcome.state for step, outcome in outcomes.items()}
    assert states.pop("data/slake-clean") == "failed"
    of_slake = {name for name in states if "slake" in name}
    assert {name for name, state in states.items() if state == "not run"} == of_slake
    assert {state for name, state in states.items() if name not in of_slake} == {"done"}
    assert shown.count(": not run") == len(of_slake)


def test_what_nothing_needs_any_more_is_not_trained(called: Path, tmp_path: Path) -> None:
    data, other = (Step("data", "data", label, options=("--needs_test",)) for label in ("slake", "vqa_rad"))
    shared, alone = (Step("fit", "pretrain", label, ("pretrain.yaml",)) for label in ("shared", "alone"))
    wanted = [
        data,
        other,
        *(Step("fit", "vqa", f"slake-{start.label}", ("vqa.yaml",), (), start, data) for start in (shared, alone)),
        Step("fit", "vqa", "vqa_rad-shared", ("vqa.yaml",), (), shared, other),
    ]
    Path(f"{called}.untestable").write_text("slake")
    outcomes, shown = run(workspace(tmp_path), wanted)
    assert (outcomes[shared].state, outcomes[wanted[-1]].state) == ("done", "done")
    assert outcomes[alone] == Outcome("not run", "data/slake: failed")
    assert "pretrain/alone: not run\ndata/slake: failed" in shown


def test_the_command_says_in_a_line_that_no_row_can_be_tested(
    called: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("vqa_rad", "slake", "medpix"):
        (tmp_path / name).mkdir()
    given = ["rivals", "--data_root", str(tmp_path), "--scale", "small", "--out", str(tmp_path / "results")]
    Path(f"{called}.untestable").touch()
    with pytest.raises(SystemExit) as ended:
        main([*given, "--datasets", "slake"])
    assert ended.value.code == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "no row can be tested" in line]
    assert "data/slake-clean failed (see " in line and "data/vqa_rad" not in line
    (call,) = map(json.loads, called.read_text().splitlines())
    assert call[0] == "data"


SETTINGS: dict[str, Any] = {
    "seed_everything": 0,
    "model": {
        "class_path": "umd.MRPretrain",
        "init_args": {
            "encoder": {"vision": "tiny_vit", "vision_weights": "default", "text_weights": None, "vision_options": {}},
            "optimizer": {"lr": 0.1},
            "init_from": None,
            "classes": None,
        },
    },
    "data": {"class_path": "datamodules.PhantomCaptions", "init_args": {"root": "data"}},
    "trainer": {
        "max_epochs": 2,
        "default_root_dir": None,
        "logger": None,
        "callbacks": [
            {"class_path": "callbacks.WeightPerturbation", "init_args": {"delta": 0.05}},
            {"class_path": "a.ModelCheckpoint", "init_args": {"enable_version_counter": True}},
        ],
    },
}


def interrupt(here: Workspace, step: Step, called: Path, **changed: object) -> None:
    """Leave what an interrupted training leaves; what umd says of the step's own settings is as in SETTINGS."""
    Path(f"{called}.settings").write_text(yaml.safe_dump({**SETTINGS, "callback": ["WeightPerturbation=off"]}))
    there = deepcopy(SETTINGS)
    there["trainer"] |= {"callbacks": [{"class_path": "a.ModelCheckpoint", "init_args": {}}]}
    model = there["model"]["init_args"]
    model["classes"] = ["ct", "mri"]
    model["encoder"]["vision_weights"] = None
    there["data"]["init_args"] |= {"root": str(Path("data").resolve()), "tokenizer": "embedded"}
    there["started_from"] = {"init_from": None, "vision_weights": "default", "text_weights": None}
    for path, value in changed.items():
        *keys, last = path.split("__")
        part = there
        for key in keys:
            part = part[key].get("init_args", part[key])
        part[last] = value
    here.checkpoint(step).parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "umd": there}, here.checkpoint(step))


def test_an_interrupted_training_goes_on_from_its_checkpoint(called: Path, tmp_path: Path) -> None:
    here = workspace(tmp_path)
    first, second = [step for step in steps() if step.stage == "pretrain"]
    interrupt(here, first, called)
    here.folder(second).mkdir(parents=True)  # killed before its first checkpoint
    run(here)
    calls = [json.loads(line) for line in called.read_text().splitlines() if "fit" in line]
    assert ["fit", "--ckpt_path", str(here.checkpoint(first))] in calls
    (anew,) = [call for call in calls if here.name(second) in call]
    assert anew[-2:] == ["--overwrite", "true"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"trainer__max_epochs": 3}, "trainer.max_epochs is 3, not 2"),
        ({"model__optimizer__lr": 0.2}, "model.optimizer.lr is 0.2, not 0.1"),
        ({"model__encoder__vision_options": {"depth": 2}}, "model.encoder.vision_options.depth is 2, not None"),
        ({"data__root": "elsewhere"}, "data.root is elsewhere, not data"),
        ({"started_from__init_from": "other.ckpt"}, "model.init_from is other.ckpt, not None"),
        ({"started_from__vision_weights": None}, "model.encoder.vision_weights is None, not default"),
        ({"trainer__callbacks": []}, "trainer.callbacks is [], not [{'class_path': 'a.ModelCheckpoint'"),
        ({"seed_everything": 1}, "seed_everything is 1, not 0"),
        ({"started_from": None}, "does not say with which settings it was made"),
    ],
)
def test_a_training_with_other_settings_is_not_taken_for_a_step(
    called: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    here = workspace(tmp_path)
    first = next(step for step in steps() if step.stage == "pretrain")
    interrupt(here, first, called, **changed)
    before = here.checkpoint(first).read_bytes()
    outcomes, _ = run(here)
    assert outcomes[first].state == "failed" and said in outcomes[first].reason
    assert here.checkpoint(first).read_bytes() == before
    assert not here.done(first)


def test_a_result_that_was_made_by_hand_is_made_again(called: Path, tmp_path: Path) -> None:
    """Nothing in it says with which options."""
    here = workspace(tmp_path)
    (blank,) = [step for step in steps() if step.command == "test"]
    here.folder(blank).mkdir(parents=True)
    (here.folder(blank) / "results.json").write_text("{}")
    run(here)
    assert [call for call in map(json.loads, called.read_text().splitlines()) if call[0] == "test"]


def test_one_step_alone_runs_once_what_it_needs_is_done(called: Path, tmp_path: Path) -> None:
    here, board = workspace(tmp_path), Board(Console(file=io.StringIO()))
    calibrate = next(step for step in steps() if step.stage == "calibrate")
    assert runner.run_one(calibrate, steps(), here, board).state == "not run"
    assert calibrate.source is not None
    before = runner.run_one(calibrate.source, steps(), here, board)
    assert (before.state, before.reason) == ("not run", "data/phantom-clean: not done"), "the data is looked at first"
    with runner._held(here.out, alone=False):  # others run beside it
        for needed in (calibrate.data, calibrate.source):
            assert needed is not None
            assert runner.run_one(needed, steps(), here, board).state == "done"
        assert runner.run_one(calibrate, steps(), here, board).state == "done"
    calls = called.read_text()
    assert len(calls.splitlines()) == 3
    assert runner.run_one(calibrate, steps(), here, board).state == "done"
    assert called.read_text() == calls


def test_two_calls_in_one_folder_are_refused(called: Path, tmp_path: Path) -> None:
    here = workspace(tmp_path)
    with runner._held(here.out, alone=False), pytest.raises(UserError, match="another umd reproduce works in"):
        run(here)
    assert called.read_text() == ""


def test_the_time_left_is_what_the_training_says() -> None:
    assert time_left({"step": 60, "seconds_left": 20.0}) == 20
    assert time_left({"step": 40, "seconds_left": None}) is time_left({"step": 40}) is None
