"""Files of answers in the forms that people have, and what is said of those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd.files import UserError
from umd.scoring.answers import read_answers

ROWS = [("1", "n/a"), ("2", "left, lung"), ("3", ""), ("4", "2")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'qid,answer,more\n1,n/a,x\n2,"left, lung",y\n3,,\n4,2,z\n'),
        ("a.csv", '\ufeffqid,answer\r\n1,n/a\r\n2,"left, lung"\r\n3,\r\n4,2\r\n'),
        ("a.csv", "qid;Model Answer\n1;n/a\n2;left, lung\n3;\n4;2\n"),
        ("a.tsv", "answer\tquestion-id\nn/a\t1\nleft, lung\t2\n\t3\n2\t4\n"),
        ("a.json", '[{"id":1,"pred":"n/a"},{"id":2,"pred":["left, lung"]},{"id":3,"pred":null},{"id":4,"pred":2.0}]'),
        ("a.json", '{"1": "n/a", "2": "left, lung", "3": "", "4": 2}'),
        ("a.json", '{"model": "x", "results": [{"id": 1, "text": "n/a"}, {"id": 2, "text": "left, lung"}, '
         '{"id": 3}, {"id": 4, "text": 2}]}'),
        ("a.jsonl", '{"qid":1,"output":"n/a"}\n\n{"qid":2,"output":"left, lung"}\n{"qid":3}\n{"qid":4,"output":2}\n'),
        ("a.json", '{"qid":1,"output":"n/a"}\n{"qid":2,"output":"left, lung"}\n{"qid":3}\n{"qid":4,"output":2}'),
    ],
)  # fmt: skip
def test_forms(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    table = read_answers(path).table
    assert list(zip(table["id"], table["answer"], strict=True)) == ROWS


def test_columns_may_be_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("key,qid,answer,ours\nq1,1,true,mine\n")
    given = read_answers(path, "key", "ours")
    assert given.table[["id", "answer"]].to_numpy().tolist() == [["q1", "mine"]]


@pytest.mark.parametrize(
    ("name", "content", "told", "message"),
    [
        ("a.csv", "qid,answer,prediction\n1,a,b\n", {}, "'answer', 'prediction' might all be the system's answers"),
        ("a.csv", "qid,said\n1,a\n", {}, r"no column is called answer or prediction.*'qid', 'said'"),
        ("a.csv", "number,answer\n1,a\n", {}, "nothing says which question a row answers"),
        ("a.csv", "qid,answer\n1,a\n", {"answer_column": "x"}, r"no column 'x' \(--answer\)"),
        ("a.csv", "qid,answer\n1,a\n", {"id_column": "x"}, r"no column 'x' \(--id\)"),
        ("a.csv", "qid,answer\n", {}, "there is no row in it"),
        ("a.csv", "", {}, "not a CSV file with a header"),
        ("a.csv", "qid,answer\n1,a,b,c\n", {}, "not a CSV file with a header"),
        ("a.csv", "qid,answer,answer\n1,a,b\n", {}, "two columns have the same name"),
        ("a.txt", "yes\nleft, right and in between\n", {}, "a file of lines is not read: .* never by order"),
        ("a.txt", "left, right\nyes\nleft, right, middle\n", {}, "a file of lines is not read: .* never by order"),
        ("a.json", "[1, 2]", {}, "should hold a list of objects"),
        ("a.json", "{", {}, "is not JSON"),
        ("a.jsonl", '{"qid": 1, "answer": "a"}\n{"qid": 2, "answer"', {}, "line 2: no JSON"),
        ("a.json", "[]", {}, "there is no row in it"),
    ],
)
def test_what_cannot_be_read_is_said(
    tmp_path: Path, name: str, content: str, told: dict[str, str], message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_answers(path, **told)


def test_other_encodings_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("qid,answer\n1,größe\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_answers(path)
