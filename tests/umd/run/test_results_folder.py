"""A second test does not overwrite the first of another checkpoint or protocol."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from umd.run.results_folder import PlannedTest, results_folder


@pytest.fixture
def best(tmp_path: Path) -> PlannedTest:
    """A run whose best checkpoint has been tested, under paper, and has another one beside it."""
    for name in ("best", "last"):
        path = tmp_path / "checkpoints" / f"{name}.ckpt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    test = PlannedTest(tmp_path / "checkpoints/best.ckpt", "VQARAD", "paper", partial=False)
    write(tmp_path / "test", test)
    return test


def write(folder: Path, test: PlannedTest, **more: Any) -> None:  # noqa: ANN401
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(test.checkpoint.read_bytes()).hexdigest()
    held = {
        "schema": 1,
        "checkpoint": {"path": f"../checkpoints/{test.checkpoint.name}", "sha256": digest, "step": 1, "epoch": 0},
        "test": {"data_class": test.data_class, "protocol": test.protocol},
        "limits": {"batches": 1, "of": 2} if test.partial else None,
    }
    (folder / "results.json").write_text(json.dumps(held | more))


def test_the_same_test_takes_its_own_place_also_from_elsewhere_and_after_more_training(best: PlannedTest) -> None:
    folder = best.checkpoint.parents[1] / "test"
    assert results_folder(folder, best) == folder
    copy = best.checkpoint.with_name("copy.ckpt")
    copy.write_bytes(best.checkpoint.read_bytes())
    assert results_folder(folder, replace(best, checkpoint=copy)) == folder
    best.checkpoint.write_text("trained on")
    assert results_folder(folder, best) == folder


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"checkpoint": "last.ckpt"}, "test_last"),
        ({"protocol": "clean"}, "test_clean"),
        ({"checkpoint": "last.ckpt", "protocol": "clean"}, "test_last_clean"),
        ({"data_class": "Slake"}, "test_Slake"),
        ({"partial": True}, "test_partial"),
    ],
)
def test_another_test_goes_beside_it_under_a_name_that_says_what_is_other(
    best: PlannedTest, changes: dict[str, Any], name: str
) -> None:
    folder = best.checkpoint.parents[1] / "test"
    if "checkpoint" in changes:
        changes = changes | {"checkpoint": best.checkpoint.with_name(changes["checkpoint"])}
    other = replace(best, **changes)
    beside = results_folder(folder, other)
    assert beside == folder.with_name(name)
    write(beside, other)
    assert results_folder(folder, other) == beside, "again, it takes its own place"


def test_a_whole_test_takes_the_place_of_a_part(best: PlannedTest) -> None:
    folder = best.checkpoint.parents[1] / "test"
    write(folder, replace(best, partial=True))
    assert results_folder(folder, best) == folder


def test_a_name_that_is_taken_by_yet_another_test_is_numbered(best: PlannedTest) -> None:
    run = best.checkpoint.parents[1]
    elsewhere = run / "elsewhere/last.ckpt"
    elsewhere.parent.mkdir()
    elsewhere.write_text("another last")
    last = replace(best, checkpoint=best.checkpoint.with_name("last.ckpt"))
    write(run / "test_last", last)
    assert results_folder(run / "test", replace(last, checkpoint=elsewhere)) == run / "test_last_2"


def test_results_from_before_are_kept_since_nothing_tells_whose_they_are(best: PlannedTest) -> None:
    folder = best.checkpoint.parents[1] / "test"
    (folder / "results.json").write_text(json.dumps({"title": "t", "notes": [], "columns": [], "rows": []}))
    assert results_folder(folder, best) == folder.with_name("test_best")
    assert results_folder(folder.with_name("new"), best) == folder.with_name("new")
