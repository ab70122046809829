"""`umd demo`: what it starts is what umd takes, a failure is told with its log, and nothing is overwritten."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from umd.commands.answer import parser
from umd.commands.configs import find_config
from umd.commands.demo import Training, main, question, train_together, trainings
from umd.files import UserError


def test_stages_hand_over_and_share_one_phantom(tmp_path: Path) -> None:
    groups = trainings(tmp_path)
    assert [[training.name for training in group] for group in groups] == [
        ["pretrain"],
        ["calibrate"],
        ["joint", "text_only", "image_only"],
    ]
    for group in groups:
        for training in group:
            typed = list(training.arguments)
            configs = [typed[place + 1] for place, word in enumerate(typed) if word == "--config"]
            assert all(find_config(config).is_file() for config in configs)
    roots = [typed[typed.index("--data.root") + 1] for typed in (one.arguments for one in groups[1] + groups[2])]
    asked = parser().parse_args(question(tmp_path))
    assert set(roots) == {str(tmp_path / "phantom")} == {str(asked.image[0].parents[1])}
    assert asked.method == "attention"  # which needs no extra


def test_what_a_training_says_is_kept_and_a_failure_ends_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_together([Training("fine", ("--version",)), Training("too", ("--help",))], tmp_path)
    assert (tmp_path / "fine.log").read_text().startswith("umd ")
    assert "fit" in (tmp_path / "too.log").read_text()
    with pytest.raises(UserError, match=r"(?s)'broken' failed; .*broken.log ends with\n.*no command 'fitt'"):
        train_together([Training("fine", ("--version",)), Training("broken", ("fitt",))], tmp_path)
    assert "broken: umd: there is no command 'fitt'" in capsys.readouterr().out


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    heavy = set(sys.modules)
    with pytest.raises(UserError, match="holds something already"):
        main(["--folder", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"] and set(sys.modules) == heavy
