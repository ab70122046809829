"""`umd score` at the size of a large data set: what it takes on one core, in a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

MANY = 100_000
A_QUESTION_IS_WRONG_EVERY = 4

MEASURED = """
import resource, sys

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

import sklearn.feature_extraction.text, torchmetrics.functional.text, torchmetrics.text
import datamodules.baselines, datamodules.vqa, umd.commands.data, umd.commands.score_tables, umd.scoring.scored
from umd.commands.score import main
_, imported = used()
main(sys.argv[1:])
seconds, peak = used()
print(f"\\n{seconds} {peak - imported}")
"""


def write_many(folder: Path) -> None:
    """Tables of a data set of 5,000 and `MANY` questions, without images; and answers, of which a quarter is wrong."""
    draw = random.Random(0)
    words = [start + end for start in ("card", "cereb", "gastr", "hepat", "pulmon", "ren") for end in ("al", "ic", "y")]

    def question() -> str:
        return f"Is the {' '.join(draw.choices(words, k=3))} of the {draw.choice(words)} seen?"

    def answer() -> str:
        short = draw.random() < 0.5
        return draw.choice(("yes", "no")) if short else " ".join(draw.choices(words, k=draw.choice((1, 1, 2, 3, 12))))

    for split, size in (("train", 5000), ("test", MANY)):
        rows = [
            (f"{split}{number}", f"{split}/{number // 5}.png", question(), answer(), draw.choice(("size", "place")))
            for number in range(size)
        ]
        table = pd.DataFrame(rows, columns=["id", "image", "question", "answer", "question_type"])
        table.to_csv(folder / f"{split}.csv", index=False)
    said = [
        f"no way {true} {draw.choice(words)}" if place % A_QUESTION_IS_WRONG_EVERY == 0 else true
        for place, true in enumerate(table["answer"])
    ]
    pd.DataFrame({"question_id": table["id"], "answer": said}).to_csv(folder / "answers.csv", index=False)


@pytest.mark.slow
def test_a_hundred_thousand_answers_take_half_a_minute_of_one_core_and_little_memory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_many(data)
    answers = (data / "answers.csv").rename(tmp_path / "answers.csv")
    arguments = [str(answers), "--data=datamodules.OwnVQA", f"--root={data}", f"--out={tmp_path / 'scores'}"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "scores" / "scores.json").read_text())["rows"]
    (overall,) = [row for row in rows if (row["system"], row["group"]) == ("answers", "overall")]
    assert (overall["questions"], overall["exact_match"]) == (MANY, 100 - 100 / A_QUESTION_IS_WRONG_EVERY)
    assert overall["interval_low"] < overall["accuracy"] < overall["interval_high"]
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    assert seconds < 30  # imports included
    assert megabytes < 350  # imports aside, which are most of what it takes
