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
            "index": place,
            "question_id": f"q{place}",
            "image": f"images/{place}.jpg",
            "question": "n/a?" if place == 0 else f"question {place}?",
            "question_type": "PRES",
            "closed": place % 2 == 0,
            "has_twin": place % 4 != 0,
            "image_in_train": place % 5 != 0,
            "answer": "yes" if place % 3 == 0 else "no",
            "answerable": place != 1,
            "most_frequent_answer": "no",
        }
        for place in range(QUESTIONS)
    ]


def groups() -> dict[str, NDArray[np.bool_]]:
    """The members of each group of `questions`."""
    place = np.arange(QUESTIONS)
    return {
        "open": place % 2 == 1,
        "closed": place % 2 == 0,
        "overall": place >= 0,
        "twin-free": place % 4 == 0,
        "unseen image": place % 5 == 0,
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
    (folder / "done.json").write_text("{}")


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
        else:
            (folder / "done.json").write_text("{}")
