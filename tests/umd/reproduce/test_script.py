"""What is printed to be run elsewhere: a script that a shell runs, and rules that hold what each step needs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.umd.reproduce.test_plan import plan, workspace
from umd.reproduce.command import main
from umd.reproduce.scales import Setting
from umd.reproduce.script import shell_script, snakefile

AWKWARD = Path("/data/it's $HOME; a {b}")
NOTE = f"""#!{sys.executable} -S
import json, sys
with open("calls", "a") as file:
    file.write(json.dumps(["umd", *sys.argv[1:]]) + "\\n")
sys.exit("--fail" in sys.argv)
"""


@pytest.fixture
def umd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `umd` that only notes its words, and the folder that it is called in."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/umd").write_text(NOTE)
    (tmp_path / "bin/umd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def bash(script: str, folder: Path) -> tuple[int, list[list[str]]]:
    """Run it; its exit code and the words of each call of umd."""
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert checked.returncode == 0 and not checked.stderr
    ended = subprocess.run(["bash"], input=script, text=True, cwd=folder, check=False)
    calls = folder / "calls"
    return ended.returncode, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def test_a_shell_runs_each_step_with_its_own_words(umd: Path) -> None:
    made = plan("table1", Setting("small", AWKWARD), rows=["umd", "blank_image"], datasets=["vqa_rad"])
    here = workspace(umd)
    code, calls = bash(shell_script(made, here, ["a title (1)\nof two lines; exit 1"]), umd)
    assert code == 0
    assert calls == [here.words(step) for step in made.steps]
    assert str(AWKWARD / "vqa_rad") in calls[0]


def test_what_is_done_is_left_out_what_was_interrupted_goes_on_what_fails_ends_it(umd: Path) -> None:
    made = plan("table1", Setting(), rows=["umd"], protocols=["clean"], seeds=[0])
    here = workspace(umd)
    data, first, second, third = made.steps
    here.folder(first).mkdir(parents=True)
    here.done_file(first).touch()
    here.checkpoint(second).parent.mkdir(parents=True)
    here.checkpoint(second).touch()
    script = shell_script(made, here, [])
    code, calls = bash(script, umd)
    goes_on = ["umd", "fit", "--ckpt_path", str(here.checkpoint(second))]
    assert (code, calls) == (0, [here.words(data), goes_on, here.words(third)])
    (umd / "calls").unlink()
    code, calls = bash(script.replace("umd fit --ckpt_path", "umd fit --fail --ckpt_path"), umd)
    assert code == 1 and len(calls) == 2


def test_the_whole_output_is_a_script(umd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (umd / "data/slake").mkdir(parents=True)
    main(["table1", "--data_root", str(umd / "data"), "--dry_run", "--out", str(umd / "out")])
    printed = capsys.readouterr().out
    assert "# left out" in printed
    code, calls = bash(printed, umd)
    assert code == 0 and {call[1] for call in calls} == {"fit", "test", "data"}


def test_each_rule_asks_for_what_its_step_needs(tmp_path: Path) -> None:
    made = plan("table1", Setting("paper", AWKWARD, devices=3), rows=["umd", "blank_image"], datasets=["vqa_rad"])
    here = workspace(tmp_path)
    text = snakefile(made, here, ["run", "--data_root", str(AWKWARD)], ["a title"])
    first, *rules = re.split(r"^rule ", text, flags=re.MULTILINE)
    namespace: dict[str, str] = {}
    exec(first, namespace)
    # Snakemake formats what it hands to the shell.
    assert shlex.split(namespace["RUN"].format()) == ["run", "--data_root", str(AWKWARD)]
    assert len(rules) == len(made.steps) + 1
    for step, rule in zip(made.steps, rules[1:], strict=True):
        asked, made_there = re.split(r"\n    output:\n", rule)
        # Nothing is trained, not even what all share, before the data is known to have a test split.
        shared = step.stage == "pretrain"
        needed = [look for benchmark, look in made.data if shared or f"-{benchmark.protocol}-" in step.label]
        needed += [step.source] if step.source else []
        assert re.findall(r'"(.*)"', asked) == [str(here.done_file(other)) for other in needed]
        assert f'"{here.done_file(step)}"' in made_there.splitlines()[0]
        assert f'RUN + " {here.full_name(step)}"' in made_there
        assert ("gpu=3" in rule) == (step.command == "fit")
    assert len({rule.partition(":")[0] for rule in rules}) == len(rules)
