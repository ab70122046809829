"""`umd answer`: each kind of checkpoint answers; what is given wrongly is said before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import umd
from umd.cli import main
from umd.commands.answer import check, parser
from umd.files import UserError

QUESTION = "Where is the lesion?"


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    """The records that the command prints."""
    capsys.readouterr()
    main(["answer", *map(str, arguments), "--json"])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def images(run_folder: Path) -> list[Path]:
    return sorted((run_folder.parents[2] / "data").rglob("*.jpg"))[:3]


@pytest.mark.parametrize("kind", ["classifier_run", "generator_run"])
def test_questions_are_answered(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder: Path = request.getfixturevalue(kind)
    first, second, _ = images(folder)
    picture = tmp_path / "look.png"
    given = ("--ckpt_path", folder, "--image", first, "--question", QUESTION, "--question", "Is it a head?")
    one, two = ask(capsys, *given, "--other_image", second, "--top", 3, "--show", picture)
    model = umd.load(folder)
    expected = model.answer(first, QUESTION, top=3)
    assert (one["image"], one["question"], two["question"]) == (str(first), QUESTION, "Is it a head?")
    assert [found["answer"] for found in one["answers"]] == [answer.text for answer in expected.answers]
    assert one["answers"][0]["probability"] == pytest.approx(expected.best.probability, abs=1e-5)
    other = model.answer(second, QUESTION)
    assert one["other_image"]["answers"][0]["answer"] == other.best.text
    same = "the same" if other.best.text == expected.best.text else "another one"
    assert f"With the other image the answer is {same}" in one["owes_to_the_image"]
    assert one["blank_image"]["image"] == "" and "With a blank image" in one["owes_to_the_image"]
    assert [record["picture"] for record in (one, two)] == [str(tmp_path / f"look_{n}.png") for n in (1, 2)]
    assert Image.open(one["picture"]).width > 500


def test_a_reader_gets_lines_with_bars(classifier_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = images(classifier_run)[0]
    main(["answer", "--ckpt_path", str(classifier_run), "--image", str(image), "--question", QUESTION, "--top", "2"])
    title, first, second, owed, *_, remark, notice = capsys.readouterr().out.rstrip("\n").split("\n")
    best = umd.load(classifier_run).answer(image, QUESTION).best
    assert title == f"{image}: {QUESTION}" and notice == umd.NOTICE == "Research software, not a medical device."
    assert first.split()[: len(best.text.split())] == best.text.split() and f"{best.probability:.3f}" in first
    assert first.count("#") == round(20 * best.probability) and second.startswith("  ")
    assert owed.startswith("  With a blank image the answer is") and "need not sum to 1" in remark


@pytest.mark.parametrize("kind", ["generator_run", "classification_run"])
def test_shares_and_likelihoods_are_not_called_separate(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder: Path = request.getfixturevalue(kind)
    question = ["--question", QUESTION] if kind == "generator_run" else []
    main(["answer", "--ckpt_path", str(folder), "--image", str(images(folder)[0]), *question])
    assert "sum to 1" not in capsys.readouterr().out


def test_a_folder_and_a_table_are_asked(
    classifier_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, image in enumerate(images(classifier_run)):
        (tmp_path / f"{place}.jpg").write_bytes(image.read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    found = ask(capsys, "--ckpt_path", classifier_run, "--image", tmp_path, "--question", QUESTION, "--batch_size", 2)
    assert [Path(record["image"]).name for record in found] == ["0.jpg", "1.jpg", "2.jpg"]
    table = tmp_path / "questions.csv"
    table.write_text(f'note,image,question\nx,2.jpg,{QUESTION}\ny,0.jpg,"Is it a head, or a chest?"\n', "utf-8-sig")
    asked = ask(capsys, "--ckpt_path", classifier_run, "--csv", table)
    assert [record["question"] for record in asked] == [QUESTION, "Is it a head, or a chest?"]
    assert asked[0]["answers"][0]["answer"] == found[2]["answers"][0]["answer"]


def test_a_broken_image_stops_no_other(
    classifier_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = images(classifier_run)[0]
    (tmp_path / "b.jpg").write_bytes(image.read_bytes())
    (tmp_path / "a.jpg").write_text("no image")
    arguments = ["--ckpt_path", str(classifier_run), "--question", QUESTION, "--json", "--image"]
    with pytest.raises(SystemExit) as ended:
        main(["answer", *arguments, str(tmp_path)])
    shown = capsys.readouterr()
    assert [Path(record["image"]).name for record in json.loads(shown.out)] == ["b.jpg"]
    assert ended.value.code == 1 and "not answered" in shown.err and "a.jpg" in shown.err and "b.jpg" not in shown.err
    with pytest.raises(SystemExit) as ended:
        main(["answer", *arguments, str(tmp_path / "a.jpg")])
    assert ended.value.code == 2


def test_the_other_tasks_answer_too(
    classification_run: Path, retrieval_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = images(classification_run)[0]
    (found,) = ask(capsys, "--ckpt_path", classification_run, "--image", image, "--text", "a scan")
    expected = umd.load(classification_run).classify(image, "a scan").best
    assert found["text"] == "a scan" and found["answers"][0]["answer"] == expected.text and "blank_image" in found

    image = images(retrieval_run)[0]
    texts = ["a head scan", "a chest radiograph", "an abdomen"]
    (tmp_path / "texts.txt").write_text("\n".join([*texts, "", ""]))
    given = ("--ckpt_path", retrieval_run, "--image", image, "--show", tmp_path / "pair")
    (typed,), (read,) = (ask(capsys, *given, "--texts", *some) for some in (texts, [tmp_path / "texts.txt"]))
    assert typed == read and {answer["answer"] for answer in typed["answers"]} == set(texts)
    assert typed["picture"] == str(tmp_path / "pair.png") and (tmp_path / "pair.png").is_file()


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("contrastive_run", ["--question", "Why?"], "no answers yet: they come with fine-tuning"),
        ("classifier_run", [], "answering: what is asked\\? Give --question"),
        ("classifier_run", ["--texts", "a", "b"], "answering: it takes --question, not --texts"),
        ("retrieval_run", ["--question", "Why?"], "retrieval: it takes --texts, not --question"),
        ("classification_run", ["--texts", "a"], "classification: it takes --text, not --texts"),
    ],
)
def test_another_task_is_named(kind: str, given: list[str], message: str, request: pytest.FixtureRequest) -> None:
    from umd.commands import answer

    folder: Path = request.getfixturevalue(kind)
    with pytest.raises(UserError, match=message):
        answer.main(["--ckpt_path", str(folder), "--image", str(images(folder)[0]), *given])


# Before torch


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--image a.jpg --question Q --ckpt_path none.ckpt", "there is no checkpoint 'none.ckpt'"),
        ("--image b.jpg --question Q", "there is no image 'b.jpg'"),
        ("--image empty --question Q", "the folder 'empty' holds no image"),
        ("--question Q", "which image\\?"),
        ("--image a.jpg --question Q --top 0", "--top is 0; it must be at least 1"),
        ("--image a.jpg --question=", "--question: it is empty"),
        ("--csv none.csv", "--csv: 'none.csv' cannot be read"),
        ("--csv bare.csv", "must have the columns image and question, and rows; it has a, b"),
        ("--csv lost.csv", "line 3: there is no image 'b.jpg'"),
        ("--csv mute.csv", "line 2: it has no question"),
        ("--csv lost.csv --image a.jpg", "--csv names images and questions itself"),
        ("--image a.jpg --question Q --show none/a.png", "--show: there is no folder 'none'"),
        ("--image a.jpg --question Q --other_image a.jpg", "is the image itself"),
        ("--image a.jpg --texts void.txt", "--texts: 'void.txt' is empty"),
    ],
)
def test_slips_are_found_at_once(given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "x.ckpt", "void.txt"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare.csv").write_text("a,b\n1,2\n")
    (tmp_path / "lost.csv").write_text("image,question\na.jpg,Q\nb.jpg,Q\n")
    (tmp_path / "mute.csv").write_text("image,question\na.jpg,\n")
    words = given.split()
    with pytest.raises(UserError, match=message):
        check(parser().parse_args(words if "--ckpt_path" in words else [*words, "--ckpt_path", "x.ckpt"]))


def test_a_slip_costs_no_wait(tmp_path: Path) -> None:
    code = (
        "import sys; from umd.cli import main\n"
        "try: main(['answer', '--ckpt_path', 'none', '--image', 'a'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "umd: there is no checkpoint 'none'\n")
