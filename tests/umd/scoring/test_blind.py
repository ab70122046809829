"""Twenty files of answers with planted faults, against a slow script that knows nothing of the package."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

import pytest

from datamodules.answers import normalize_answer
from tests.umd.scoring.samples import questions
from umd.scoring.answers import read_answers
from umd.scoring.questions import Questions
from umd.scoring.scored import Scored, score

Row = dict[str, Any]
OPEN = ("left lower lobe", "pleural effusion", "ct", "2", "naïve cyst", "3.4 cm", "patient's heart", "lungs", "x ray")


def asked() -> list[Row]:
    """Sixty questions about twenty images; what is accepted is normalised, as a data set gives it."""
    rows: list[Row] = []
    for place in range(60):
        closed = place % 3 == 0
        answer = ("yes", "no")[place % 2] if closed else OPEN[place % len(OPEN)]
        rows.append(
            {
                "answer": answer,
                "question_id": str(100 + place),
                "image": f"images/synpic{place // 3}.jpg",
                "question": f"Question number {place}: what is seen, and is it large?",
                "closed": closed or place % 10 == 1,
            }
        )
        if place == 7:
            rows[-1]["accepted"] = (answer, "liver", "left lobe of liver")
    return rows


# The slow script


def slow_words(text: str | None) -> list[str]:
    """The words of an answer: one after the other, what the rules of the VQA evaluation and of the README say."""
    text = unicodedata.normalize("NFKC", text or "")
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"')
    text = "".join("-" if unicodedata.category(letter) == "Pd" else letter for letter in text).lower()
    whole = " ".join(text.split())
    kept = ""
    for place, letter in enumerate(whole):
        after = whole[place + 1 : place + 2]
        if letter == "." and not after.isdigit():
            continue
        if letter == "," and whole[place - 1 : place].isdigit() and re.match(r"\d{3}(?!\w)", whole[place + 1 :]):
            continue
        kept += " " if letter in ';/[]"{}()=+\\_-><@`,?!' else letter
    numbers = "zero one two three four five six seven eight nine ten".split()
    words = []
    for word in kept.split():
        if word in ("a", "an", "the"):
            continue
        words.append(str(numbers.index(word)) if word in numbers else "0" if word == "none" else word)
    return words or whole.split()


def slow_yes_no(text: str | None) -> str:
    text = unicodedata.normalize("NFKC", text or "").lower().replace("\ufeff", "").replace("\u200b", "")
    for mark in '.,;:!?()[]{}"*\n/|\u2026-':
        text = text.replace(mark, "#")
    clauses = [clause.split() for clause in text.split("#") if clause.split()]
    said = [words[-1] for words in clauses] + [words[0] for words in clauses[:1]]
    said = [word for word in said if word in ("yes", "no")]
    return said[0] if len(set(said)) == 1 else ""


def slow_marks(answer: str | None, row: Row) -> dict[str, float]:
    words = slow_words(answer)
    accepted = [slow_words(one) for one in row.get("accepted", (row["answer"],))]
    exact = answer is not None and words != [] and words in accepted
    asks = row["closed"] and (["yes"] in accepted or ["no"] in accepted)
    read = slow_yes_no(answer) if asks else ""
    found: list[tuple[float, float, float]] = []
    for true in accepted:
        shared = sum(min(words.count(word), true.count(word)) for word in set(words))
        found.append(
            (2 * shared / (len(words) + len(true)), shared / len(words), shared / len(true)) if shared else (0.0,) * 3
        )
    best = max(found)
    near = min((abs(len(true) - len(words)), place, len(true)) for place, true in enumerate(accepted))[2]
    hits = sum(min(words.count(word), max(true.count(word) for true in accepted)) for word in set(words))
    rouge = max((lcs(words, true) * 2 / (len(words) + len(true)) if words else 0.0) for true in accepted)
    return {
        "accuracy": float(exact or (read != "" and [read] in accepted)),
        "exact_match": float(exact),
        "token_f1": best[0],
        "token_precision": best[1],
        "token_recall": best[2],
        "bleu_1": (hits / len(words)) * (1 if len(words) > near else exp(1 - near / len(words))) if hits else 0.0,
        "rouge_l": rouge,
    }


def lcs(one: list[str], other: list[str]) -> int:
    if not one or not other:
        return 0
    return max(
        lcs(one[1:], other),
        lcs(one, other[1:]),
        1 + lcs(one[1:], other[1:]) if one[0] == other[0] else 0,
    )


def slow_score(rows: list[Row], said: dict[str, list[str]]) -> dict[str, float]:
    """Means in per cent; `said` has every answer to each question, of which different ones are none."""
    totals: Counter[str] = Counter()
    for row in rows:
        answers = said.get(row["question_id"], [])
        one = answers[0] if answers and len({" ".join(slow_words(answer)) for answer in answers}) == 1 else None
        totals.update(slow_marks(one, row))
    return {name: 100 * total / len(rows) for name, total in totals.items()}


# The files


def right(row: Row) -> str:
    return str(row["answer"])


def guess(row: Row) -> str:
    """Sometimes right, sometimes near, sometimes far, and the same each time."""
    chance = random.Random(row["question_id"])
    return str(chance.choice([row["answer"], row["answer"], "no", "left lobe", "lung", f"{row['answer']} seen"]))


def sentence(row: Row) -> str:
    ends = ("Yes, it is.", "The answer is {}.", "No, there is nothing", "I think so: {}", "There is no {}", "yes/no")
    return ends[int(row["question_id"]) % len(ends)].format(row["answer"])


WRITTEN: dict[str, Callable[[Row], str]] = {
    "as it is": guess,
    "all right": right,
    "capitals": lambda row: guess(row).upper(),
    "plurals": lambda row: guess(row) + "s",
    "punctuation": lambda row: f" {guess(row).replace(' ', ', ')}!  ",
    "articles": lambda row: f"The {guess(row)}",
    "decomposed": lambda row: unicodedata.normalize("NFD", right(row)),
    "full width": lambda row: "".join(
        chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in right(row)
    ),
    "no-break blanks": lambda row: guess(row).replace(" ", "\u00a0") + "\u200b",
    "curly quotes and dashes": lambda row: right(row).replace("'", "\u2019").replace("x ray", "X\u2011ray"),
    "sentences": sentence,
    "number words": lambda row: {"2": "Two", "3.4 cm": "3.4 cm."}.get(row["answer"], "none"),
    "empty": lambda row: "" if int(row["question_id"]) % 4 else right(row),
}
Table = tuple[str, str, dict[str, list[str]]]


def as_csv(table: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def plain_file(rows: list[Row], write: Callable[[Row], str]) -> Table:
    table = [{"question_id": row["question_id"], "answer": write(row)} for row in rows]
    return "csv", as_csv(table), {row["question_id"]: [row["answer"]] for row in table}


def shuffled_without_some(rows: list[Row]) -> Table:
    kept = random.Random(1).sample(rows, 40)
    return (
        "jsonl",
        "\n".join(json.dumps({"qid": int(row["question_id"]), "text": guess(row), "more": [1]}) for row in kept),
        {row["question_id"]: [guess(row)] for row in kept},
    )


def doubled(rows: list[Row]) -> Table:
    said = {row["question_id"]: [guess(row)] for row in rows}
    table = [{"id": f"{row['question_id']}.0", "prediction": guess(row), "score": 0.5} for row in rows]
    for place, row in enumerate(rows[:20]):
        again = guess(row).upper() if place % 2 else "something else"
        said[row["question_id"]].append(again)
        table.append({"id": row["question_id"], "prediction": again, "score": 0.4})
    random.Random(2).shuffle(table)
    return "csv", "\ufeff" + as_csv(table), said


def unknown_ids(rows: list[Row]) -> Table:
    table = [{"qid": row["question_id"], "answer": guess(row)} for row in rows]
    table += [{"qid": f"9{row['question_id']}", "answer": right(row)} for row in rows]
    return "json", json.dumps(table), {row["question_id"]: [guess(row)] for row in rows}


def by_image_and_question(rows: list[Row]) -> Table:
    table = [
        {"#": 100 + place, "img": row["image"].split("/")[1], "Question": row["question"].upper(), "pred": guess(row)}
        for place, row in enumerate(reversed(rows))
    ]
    return "json", json.dumps({"model": "m", "answers": table}), {row["question_id"]: [guess(row)] for row in rows}


def numbered_from_the_wrong_end(rows: list[Row]) -> Table:
    table = [
        {"id": 100 + place, "image": row["image"], "question": row["question"], "answer": guess(row)}
        for place, row in enumerate(reversed(rows))
    ]
    return "csv", as_csv(table), {row["question_id"]: [guess(row)] for row in rows}


def object_of_answers(rows: list[Row]) -> Table:
    return (
        "json",
        json.dumps({row["question_id"]: int(row["answer"]) if row["answer"] == "2" else right(row) for row in rows}),
        {row["question_id"]: [right(row)] for row in rows},
    )


def nulls_and_numbers(rows: list[Row]) -> Table:
    def value(row: Row) -> object:
        return {0: None, 1: 2.0, 2: [row["answer"]], 3: True, 4: row["answer"]}[int(row["question_id"]) % 5]

    def text(row: Row) -> str:
        return {0: "", 1: "2", 2: right(row), 3: "true", 4: right(row)}[int(row["question_id"]) % 5]

    return (
        "jsonl",
        "\n\n".join(json.dumps({"question_id": row["question_id"], "response": value(row)}) for row in rows) + "\n",
        {row["question_id"]: [text(row)] for row in rows},
    )


SHAPES: dict[str, Callable[[list[Row]], Table]] = {
    "shuffled, some missing, json lines, numbers as ids": shuffled_without_some,
    "doubled, with the same and with other answers, 100.0 as id, byte order mark": doubled,
    "unknown ids": unknown_ids,
    "by image and question, in a list inside an object": by_image_and_question,
    "numbered from the wrong end": numbered_from_the_wrong_end,
    "an object of answers": object_of_answers,
    "null, numbers, lists and true": nulls_and_numbers,
}


def scored(path: Path, ending: str, text: str, of: Questions) -> Scored:
    path = path / f"answers.{ending}"
    path.write_text(text, encoding="utf-8", newline="")
    return score(of, {"it": read_answers(path)}, normalize_answer)


def check(result: Scored, rows: list[Row], said: dict[str, list[str]]) -> None:
    found = {row["group"]: row for row in result.rows}
    groups = {"overall": rows, "closed": [row for row in rows if row["closed"]]}
    groups["open"] = [row for row in rows if not row["closed"]]
    for group, members in groups.items():
        assert found[group]["questions"] == len(members)
        for metric, value in slow_score(members, said).items():
            assert found[group][metric] == pytest.approx(value, abs=1e-4), (group, metric)


@pytest.mark.parametrize("name", WRITTEN)
def test_spelling(tmp_path: Path, name: str) -> None:
    rows = asked()
    ending, text, said = plain_file(rows, WRITTEN[name])
    check(scored(tmp_path, ending, text, questions(rows)), rows, said)


@pytest.mark.parametrize("name", SHAPES)
def test_shape(tmp_path: Path, name: str) -> None:
    rows = asked()
    ending, text, said = SHAPES[name](rows)
    result = scored(tmp_path, ending, text, questions(rows))
    check(result, rows, said)
    counts = result.matched["it"].counts
    assert counts["missing"] == sum(row["question_id"] not in said for row in rows)
    assert counts["repeated"] == (10 if SHAPES[name] is doubled else 0)
    assert counts["contradictory"] == (10 if SHAPES[name] is doubled else 0)
    assert counts["unknown"] == (60 if SHAPES[name] is unknown_ids else 0)


def test_there_are_twenty_and_the_faults_bite() -> None:
    assert len(WRITTEN) + len(SHAPES) == 20
    rows = asked()
    exact = {name: slow_score(rows, plain_file(rows, write)[2])["exact_match"] for name, write in WRITTEN.items()}
    assert exact["all right"] == exact["decomposed"] == exact["full width"] == 100
    assert exact["capitals"] == exact["punctuation"] == exact["articles"] == exact["as it is"] < 80
    of_sentences = slow_score(rows, plain_file(rows, sentence)[2])
    assert exact["sentences"] < of_sentences["accuracy"] < 40 and exact["plurals"] < 15
