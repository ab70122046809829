"""Finished steps without any training: the files that they leave, written by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd.reproduce.plan import Plan
from umd.reproduce.steps import Step, Workspace

QUESTIONS = 40


def questions() -> list[dict[str, object]]:
    """Test questions: every other one closed, every fourth without a twin, every fifth of an unseen image."""
    return [
        {
            "index": index,
            "question_id": f"q{index}",
            "image": f"images/{index}.jpg",
            "question": "n/a?" if index == 0 else f"question {index}?",
            "question_type": "PRES",
            "closed": index % 2 == 0,
            "has_twin": index % 4 != 0,
            "image_in_train": index % 5 != 0,
            "answer": "yes" if index % 3 == 0 else "no",
            "answerable": index != 1,
            "most_frequent_answer": "no",
        }
        for index in range(QUESTIONS)
    ]


def groups() -> dict[str, NDArray[np.bool_]]:
    """The members of each group of `questions`."""
    index = np.arange(QUESTIONS)
    return {
        "open": index % 2 == 1,
        "closed": index % 2 == 0,
        "overall": index >= 0,
        "twin-free": index % 4 == 0,
        "unseen image": index % 5 == 0,
    }


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [{key: str(v).lower() if isinstance(v, bool) else v for key, v in row.items()} for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(plain[0]), quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(plain)


def finish_vqa(folder: Path, correct: NDArray[np.bool_]) -> None:
    """What a VQA training leaves whose test had these answers right."""
    rows = [
        {key: row[key] for key in ("index", "question_id", "image", "question", "closed", "has_twin")}
        | {"answer": row["answer"] if right else "wrong", "ground_truth": row["answer"], "correct": bool(right)}
        for row, right in zip(questions(), correct, strict=True)
    ]
    write_csv(folder / "predictions.csv", rows)
    reported = [
        {"group": name, "questions": int(members.sum()), "accuracy": 100 * float(correct[members].mean())}
        | {"interval_low": 0.0, "interval_high": 100.0, "ceiling": 90.0, "share_of_ceiling": None}
        for name, members in groups().items()
        if name != "unseen image"
    ]
    report = {"title": "t", "notes": [], "columns": list(reported[0]), "rows": reported}
    (folder / "results.json").write_text(json.dumps(report))


def finish_data(folder: Path) -> None:
    """What `umd data` leaves."""
    write_csv(folder / "test_questions.csv", questions())
    overall = {"group": "overall", "ceiling_of_training_answers": 77.7}
    summary = {
        "description": {"data": "VQA-RAD", "protocol": "clean", "train": "100"},
        "splits": {"train": {}, "test": {}},
        "test_file": "test_questions.csv",
        "test": {"groups": [overall]},
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def finish(plan: Plan, workspace: Workspace, correct: Mapping[Step, NDArray[np.bool_]]) -> None:
    """Finish every step of a plan; trainings without given answers just end."""
    for step in plan.steps:
        folder = workspace.folder(step)
        folder.mkdir(parents=True, exist_ok=True)
        if step in correct:
            finish_vqa(folder, correct[step])
        elif step.command == "data":
            finish_data(folder)
        (folder / "done.json").write_text("{}")
