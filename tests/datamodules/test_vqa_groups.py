"""The kinds of questions, against pandas on the published files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from datamodules import SLAKE, VQARAD
from datamodules.problems import Problems
from datamodules.questions import VQARecord
from datamodules.vqa_groups import question_kinds


def test_vqa_rad_by_type_and_organ(shared_data: Path) -> None:
    splits = VQARAD(str(shared_data / "vqa_rad"), validation_fraction=0).read(Problems("VQA-RAD"))
    groups = question_kinds(splits["train"], splits["test"])
    rows = pd.DataFrame(json.loads((shared_data / "vqa_rad" / "testset.json").read_text()))
    for name, column in (("type", "question_type"), ("organ", "image_organ")):
        of_each = rows[column].str.split(r",\s*").explode().str.strip()
        counts = of_each.value_counts().to_dict()
        assert {key: sum(members) for key, members in groups.items() if key.startswith(f"{name}:")} == {
            f"{name}: {value}": count for value, count in counts.items()
        }
    assert sum(groups["answer in train"]) + sum(groups["answer not in train"]) == 451


def test_slake_by_what_its_rows_say(shared_data: Path) -> None:
    splits = SLAKE(str(shared_data / "slake")).read(Problems("SLAKE"))
    groups = question_kinds(splits["train"], splits["validation"])
    rows = pd.DataFrame(json.loads((shared_data / "slake" / "validate.json").read_text()))
    for name, column in (("type", "content_type"), ("modality", "modality"), ("location", "location")):
        assert {key: sum(members) for key, members in groups.items() if key.startswith(f"{name}:")} == {
            f"{name}: {value}": count for value, count in rows[column].value_counts().items()
        }
    assert "image in train" not in groups, "no image is in both splits"


def test_groups_of_none_or_all_are_left_out_and_accepted_answers_count() -> None:
    def record(image: str, answer: str, kind: str, *more: str) -> VQARecord:
        return VQARecord("1", image, "?", answer, False, kind, also_accepted=more)

    train = [record("a", "left", "X")]
    groups = question_kinds(train, [record("a", "right", "X, Y", "left"), record("b", "up", "X")])
    assert groups == {
        "image not in train": [False, True],
        "image in train": [True, False],
        "answer in train": [True, False],
        "answer not in train": [False, True],
        "type: Y": [True, False],
    }
    assert question_kinds([], [record("a", "b", "X")]) == {}
