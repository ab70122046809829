"""One's own data, as datamodules/README.md says to lay it out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from datamodules import OwnCaptions, OwnClassification, OwnRetrieval, OwnVQA
from datamodules.base import ImageTextDataModule
from datamodules.problems import Problems
from umd.files import UserError


def write(root: Path, **tables: str) -> str:
    """Tables as CSV, and images a.png to d.png in images/."""
    (root / "images").mkdir(parents=True)
    for place, name in enumerate("abcd"):
        Image.new("L", (40, 30), 50 * place).save(root / "images" / f"{name}.png")
    for name, text in tables.items():
        (root / f"{name}.csv").write_text(text)
    return str(root)


def test_questions_need_no_answer_type(tmp_path: Path) -> None:
    root = write(
        tmp_path / "ward",
        train="image,question,answer\na.png,Is it bright?,No\nb.png,What is it?,a lesion|a mass\nc.png,Which?,left\n",
        test="image,question,answer\na.png, is it BRIGHT? ,yes\nd.png,What is it?,\n",
    )
    data = OwnVQA(root, protocol="paper")
    train, test = data.records("train"), data.records("test")
    assert [record.closed for record in train] == [True, False, False]
    assert train[1].accepted == ("lesion", "mass")
    assert [record.sample_id for record in test] == ["test.csv:1", "test.csv:2"]
    assert [record.has_twin for record in (*train, *test)] == [True, False, False, True, False]
    assert [record.accepted for record in test] == [("yes",), ()]
    assert data.description["data"] == "ward"
    clean = OwnVQA(root, validation_fraction=0)
    assert [record.image for record in clean.records("train")] == ["images/b.png", "images/c.png"]


def test_questions_with_all_there_is_to_say(tmp_path: Path) -> None:
    rows = [
        {"image": "a", "question": "q?", "answer": ["left", "left side"], "id": 7, "answer_type": "closed "},
        {"image": "images/b.png", "question": "q?", "answer": 2, "question_type": "COUNT", "answer_type": "OPEN"},
        {"image": "../c.png", "question": "q?", "answer": "x"},
        {"image": 3, "question": "q?", "answer": "x"},
    ]
    write(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(rows))
    data = OwnVQA(str(tmp_path), validation_fraction=0, name="mine")
    with pytest.warns(UserWarning) as caught:
        first, second = data.records("train")
    told = " ".join(str(warning.message) for warning in caught)
    assert "1 x train row left out: image path leads outside the data set: train.json:3" in told
    assert "1 x row without image, left out" in told
    assert (first.sample_id, first.closed, first.accepted) == ("7", True, ("left", "left side"))
    assert (second.sample_id, second.closed, second.question_type) == ("train.json:2", False, "COUNT")


def test_what_is_no_answer_and_what_is_not_there(tmp_path: Path) -> None:
    given = ("N/A", "na", "null", "NaN", "-", "n/a|left", "none", "no", "")
    lines = "".join(f"a.png,q{place}?,{answer}\n" for place, answer in enumerate(given))
    root = write(
        tmp_path / "ward", train="image,question,answer\n" + lines, test="image,question,anwser\nb.png,q?,left\n"
    )
    data = OwnVQA(root, validation_fraction=0)
    with pytest.warns(UserWarning, match=r"1 x no column 'answer' \(there: image, question, anwser\).*: test\.csv"):
        assert [record.accepted for record in data.records("train")] == [("left",), ("0",), ("no",)]
    counts = data.summary().splits
    assert (counts["test"]["open"], counts["test"]["closed"]) == (0, 0)
    assert data.summary().test_rows[0]["closed"] is None
    assert "found by their text alone; rewordings are not looked for" in data.description["twins"]


def test_a_test_table_alone_is_described(tmp_path: Path) -> None:
    data = OwnVQA(write(tmp_path / "ward", test="image,question,answer\nb.png,q?,left\n"))
    assert data.summary().splits["test"]["open"] == 1


def test_the_words_of_the_paper_protocol(tmp_path: Path) -> None:
    table = "image,question,answer\na.png,q?,left\n"
    data = OwnVQA(write(tmp_path / "ward", train=table + "b.png,q?,no\n", test=table), protocol="paper")
    data.setup("fit")
    assert data.description["validated on"] == "the test split itself"
    assert data.description["training rows that are twins"] == "1"


def test_captions_that_are_too_short_are_said_where_none_is_left(tmp_path: Path) -> None:
    root = write(tmp_path, train="image,caption\na.png,head 9\nb.png,head\n")
    assert len(OwnRetrieval(root).records("train")) == 2
    with pytest.raises(UserError, match=r"2 captions of fewer than 3 words, left out \(--data\.minimum_words\)"):
        OwnRetrieval(root, minimum_words=3).records("train")


def test_captions_and_pairs_to_retrieve(tmp_path: Path) -> None:
    table = "image,caption\na.png,a  bright round lesion\nb.png,\n,no image here at all\nc.png,short\n"
    root = write(tmp_path, train=table)
    problems = Problems("t")
    kept = {"a.png": "a bright round lesion", "c.png": "short"}
    captions = OwnCaptions(root).read(problems)
    assert {record.image: record.text for record in captions["train"]} == {f"images/{k}": v for k, v in kept.items()}
    assert problems.counts == {"row without caption, left out": 1, "row without image, left out": 1}
    pairs = OwnRetrieval(root, minimum_words=3).read(Problems("t"))
    assert [record.text for record in pairs["train"]] == ["a bright round lesion"]  # the others have too few words


def test_classes_need_no_text_and_may_be_numbers(tmp_path: Path) -> None:
    root = write(
        tmp_path, train="image,label\na.png,0\nb.png,1\nc.png,\n", test="image,label,text\nd.png,1,seen here\n"
    )
    data = OwnClassification(root)
    with pytest.warns(UserWarning, match=r"1 x row without label, left out: train\.csv:3"):
        data.setup()
    assert data.classes == ("0", "1") and data.records("test")[0].text == "seen here"
    (batch,) = data.train_dataloader()
    assert sorted(batch.labels) == ["0", "1"] and batch.texts == ("", "")


@pytest.mark.parametrize("kind", [OwnVQA, OwnCaptions, OwnRetrieval, OwnClassification])
def test_a_folder_without_tables_is_told(tmp_path: Path, kind: type[ImageTextDataModule]) -> None:  # type: ignore[type-arg]
    root = write(tmp_path)
    with pytest.raises(UserError, match=r"looked in .* for \{train,validation,test\}\.\{csv,.*; it holds images"):
        kind(root).setup("fit")
    (tmp_path / "qas").mkdir()
    (tmp_path / "qas" / "train_qa.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match=r"train_qa\.pkl is a pickle, and reading one runs whatever code"):
        kind(root).setup("fit")
    assert not Path("ran").exists()
