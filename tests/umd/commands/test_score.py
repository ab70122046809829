"""`umd score`: tests of our own have their own numbers again, and anybody's files are graded beside the fools."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.configs.test_configs import fit
from tests.datamodules.samples import row, write_vqa
from umd.cli import main
from umd.metrics.paired import holm, mcnemar, sign_flip_test
from umd.metrics.vqa import VQA_REPORT_COLUMNS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a VQA training of one step, which ended with a test of the whole test split."""
    folder = tmp_path_factory.mktemp("score")
    data = [f"--data.root={folder / 'data'}", "--data.size=12", "--trainer.limit_test_batches=1.0"]
    fit(folder / "runs", ["vqa.yaml"], *data)
    return folder / "runs" / "vqa" / "default"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """VQA-RAD's layout with four more test questions; two of all five are closed."""
    test = {"phrase_type": "test_freeform"}
    more = [
        row(100, "1.png", "Is there lesion number 1, or two?", "no", **test),
        row(101, "2.png", "What is in image 2, then?", "left lung", **test),
        row(102, "2.png", "What is seen in image 2?", "organ 2", question_type="ORGAN, PRES", **test),
        row(103, "3.png", "Which organ?", "liver", question_type="ORGAN", **test),
    ]
    return write_vqa(tmp_path / "data", rows=more)


def run(out: Path, *arguments: object) -> dict[str, Any]:
    main(["score", *map(str, arguments), "--out", str(out)])
    content: dict[str, Any] = json.loads((out / "scores.json").read_text())
    return content


def write(path: Path, answers: dict[int, str]) -> Path:
    pd.DataFrame({"qid": answers.keys(), "answer": answers.values()}).to_csv(path, index=False)
    return path


def of(content: dict[str, Any], system: str) -> dict[str, dict[str, Any]]:
    return {row["group"]: row for row in content["rows"] if row["system"] == system}


@pytest.mark.parametrize("given", ["", "results.json", "predictions.csv"])
def test_a_test_of_our_own_has_the_numbers_of_umd_test(trained: Path, tmp_path: Path, given: str) -> None:
    found = of(run(tmp_path, trained / given), "default")
    reported = json.loads((trained / "results.json").read_text())["rows"]
    assert {row["group"] for row in reported} == {"open", "closed", "overall", "twin-free"}
    for own in reported:
        again = found[own["group"]]
        for name in VQA_REPORT_COLUMNS:
            if not name.endswith("ceiling"):
                assert again[name] == own[name], (own["group"], name)
        assert again["exact_match"] == own["accuracy"]
    breakdown = json.loads((trained / "results.json").read_text())["breakdown"]
    assert {row["group"] for row in breakdown} == set(found) - {row["group"] for row in reported} != set()
    for own in breakdown:
        for name in ("questions", "accuracy", "interval_low", "image_interval_high"):
            assert found[own["group"]][name] == own[name], (own["group"], name)
    overall = next(row for row in reported if row["group"] == "overall")
    known = found.get("answer in train", found["overall"])
    assert 100 * known["questions"] / overall["questions"] == pytest.approx(overall["ceiling"])


def test_files_are_graded_by_group_beside_the_fools(data: Path, tmp_path: Path) -> None:
    answers = {13: "No, it is not.", 15: "it is absent", 16: "Left lungs", 17: "organ 2", 99: "liver"}
    content = run(tmp_path / "out", write(tmp_path / "a.csv", answers), "--data", "vqa_rad", "--root", data)
    assert content["questions"] == "VQA-RAD, protocol clean, test"
    assert content["systems"]["a"]["missing"] == content["systems"]["a"]["unknown"] == 1
    found = of(content, "a")
    assert {name: (row["questions"], row["accuracy"]) for name, row in found.items()} == {
        "open": (3, pytest.approx(100 / 3)),
        "closed": (2, 50),
        "overall": (5, 40),
        "twin-free": (4, 25),
        "answer in train": (1, 100),
        "answer not in train": (4, 25),
        "type: PRES": (4, 50),
        "type: ORGAN": (2, 50),
    }
    assert found["closed"]["unreadable"] == 1 and found["overall"]["exact_match"] == 20
    assert found["overall"]["token_f1"] == pytest.approx(100 * (2 / 5 + 1 / 2 + 1) / 5)
    # Five of the twelve training rows say yes, and none is closed and says no.
    assert of(content, "most frequent")["overall"]["accuracy"] == 0
    assert of(content, "nearest question")["type: ORGAN"]["accuracy"] == 50
    text = (tmp_path / "out" / "questions.csv").read_text()
    assert "left lungs" in text and "answer: nearest question" in text.splitlines()[0]


def test_a_system_below_a_fool_is_marked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    content = run(tmp_path / "out", write(tmp_path / "a.csv", {13: "no"}), "--data", "vqa_rad", "--root", data)
    found = of(content, "a")
    assert found["open"]["below"] == ["nearest question"] and found["closed"]["below"] == []
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.strip().startswith("open"))
    assert "< 0.0" in line and "nearest" in shown


def test_a_file_may_be_called_like_a_fool(data: Path, tmp_path: Path) -> None:
    right = {13: "no", 15: "no", 16: "left lung", 17: "organ 2", 18: "liver"}
    content = run(tmp_path / "out", write(tmp_path / "twin.csv", right), "--data", "vqa_rad", "--root", data)
    assert of(content, "twin")["overall"]["accuracy"] == 100 and not of(content, "twin")["overall"]["fool"]
    assert of(content, "twin (no look)")["overall"]["fool"]


def test_files_are_compared_in_pairs_and_where_they_differ_is_listed(data: Path, tmp_path: Path) -> None:
    right = {13: "no", 15: "no", 16: "left lung", 17: "organ 2", 18: "liver"}
    given = {
        "a": right,
        "b": right | {15: "yes", 16: "yes", 17: "Organ 2."},
        "c": {13: "yes", 15: "", 16: "lung", 17: "organ 3"},
    }
    files = [write(tmp_path / f"{name}.csv", answers) for name, answers in given.items()]
    content = run(tmp_path / "out", *files, "--data", "VQARAD", "--root", data)
    correct = {"a": [1, 1, 1, 1, 1], "b": [1, 0, 0, 1, 1], "c": [0, 0, 0, 0, 0]}
    images = ["0", "1", "2", "2", "3"]
    for over in ("questions", "images"):
        pairs = [pair for pair in content["pairs"] if pair["over"] == over]
        p = []
        for (one, other), pair in zip(combinations("abc", 2), pairs, strict=True):
            gains = [x - y for x, y in zip(correct[one], correct[other], strict=True)]
            by_question = mcnemar([*map(bool, correct[one])], [*map(bool, correct[other])])
            p.append(by_question if over == "questions" else sign_flip_test(gains, images))
            assert (pair["one"], pair["other"]) == (one, other) and pair["p"] == p[-1]
            assert pair["difference"] == pytest.approx(100 * sum(gains) / 5)
        assert [pair["p_holm"] for pair in pairs] == holm(p)
    agree = content["agreement"][0]
    shares = {"same_answer": 60, "both_right": 60, "only_one_right": 40, "only_other_right": 0, "both_wrong": 0}
    assert agree == {"one": "a", "other": "b"} | shares
    differing = pd.read_csv(tmp_path / "out" / "differences.csv", keep_default_na=False)
    assert set(differing["question"]) == {
        "Do you see a lesion?",
        "Is there lesion number 1, or two?",
        "What is in image 2, then?",
        "What is seen in image 2?",
        "Which organ?",
    }
    content = run(tmp_path / "out", *files[:2], "--data", "VQARAD", "--root", data)
    differing = pd.read_csv(tmp_path / "out" / "differences.csv", keep_default_na=False)
    assert differing["answer: b"].tolist() == ["yes", "yes"] and differing["correct: a"].tolist() == [True, True]


def test_an_ensemble_answers_as_most_do_and_of_a_tie_as_the_first(data: Path, tmp_path: Path) -> None:
    given = {
        "a": {13: "yes", 15: "no", 16: "left lung", 17: "organ 3"},
        "b": {13: "No.", 15: "yes", 16: "lung", 17: "organ 2", 18: " "},
        "c": {13: "no", 15: "yes", 16: "right lung", 17: "Organ 2."},
    }
    files = [write(tmp_path / f"{name}.csv", answers) for name, answers in given.items()]
    content = run(tmp_path / "out", *files, "--vote", "--data", "vqa_rad", "--root", data)
    asked = pd.read_csv(tmp_path / "out" / "questions.csv", keep_default_na=False, dtype=str).set_index("question_id")
    assert asked["answer: vote"].to_dict() == {"13": "no", "15": "yes", "16": "left lung", "17": "organ 2", "18": ""}
    assert asked["correct: vote"].to_dict() == dict(
        zip(asked.index, ["True", "False", "True", "True", "False"], strict=True)
    )
    assert of(content, "vote")["overall"]["accuracy"] == 60
    assert content["systems"]["vote"]["missing"] == 1 and content["systems"]["vote"]["tied"] == 1
    pairs = [(pair["one"], pair["other"]) for pair in content["pairs"] if pair["over"] == "questions"]
    assert pairs == list(combinations(["a", "b", "c", "vote"], 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.csv", "b.csv", "--vote"], "--vote: among 2 systems the first one would always win: give three files"),
        (["a.csv", "b.csv", "vote.csv", "--vote"], "--vote: a file is called 'vote', as the ensemble is: rename it"),
        (["absent.csv"], "there is no file 'absent.csv'"),
        (["."], "has no predictions.csv: test it first"),
        (["a.csv"], "the answers of which data set?"),
        (["a.csv", "a.csv", "--data", "vqa_rad"], "a file is given twice"),
        (
            ["a.csv", "--data", "vqarad", "--root", "data"],
            "--data: there is no configs/data/vqarad.yaml; did you mean vqa_rad?",
        ),
        (["a.csv", "--data", "vqa_rad", "--root", "elsewhere"], "there is no such folder"),
        (["a.csv", "--data", "vqa_rad", "--root", "data", "--answer", "x"], "there is no column 'x'"),
        (["a.csv", "--data", "roco", "--root", "data"], "umd score needs a data set of questions"),
        (["a.csv", "--data", "vqa_rad", "--root", "data", "--split", "validation"], "no validation split"),
        (["a.csv", "--data", "vqa_rad", "--images"], "--images: pictures belong in a report"),
        (["a.csv", "--controls", "b.csv"], "--controls: 'b.csv' is not of the form NAME=FILE"),
        (["a.csv", "--controls", "x=a.csv", "x=b.csv"], "--controls: 'x' is given twice"),
        (["a.csv", "--controls", "x=b.csv"], "--controls: x: there is no file 'b.csv'"),
        (["a.csv", "a.csv", "--controls", "x=a.csv"], "they are those of one system; give one file of answers, not 2"),
        (["a.csv", "--data.protocol"], "--data.protocol: there is no value for it"),
    ],
)
def test_a_mistake_is_one_line(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", {13: "no"})
    if "--vote" in arguments:
        write(tmp_path / "b.csv", {13: "no"})
        write(tmp_path / "vote.csv", {13: "no"})
    if "validation" in arguments:
        arguments = [*arguments, "--data.validation_fraction", "0"]
    with pytest.raises(SystemExit) as stopped:
        main(["score", *arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_the_report_shows_images_only_where_asked_for(data: Path, tmp_path: Path) -> None:
    arguments = (write(tmp_path / "a.csv", {13: "no", 15: "yes"}), "--data", "vqa_rad", "--root", data)
    (data / "images" / "3.png").write_bytes(b"no image")
    sizes = {}
    for name, more in (("plain", ()), ("few", ("--images", "1")), ("all", ("--images",))):
        path = tmp_path / "reports" / f"{name}.html"
        run(tmp_path / "out", *arguments, "--report", path, *more)
        page = path.read_text()
        sizes[name] = page.count("data:image/jpeg;base64,")
        assert "Lau, Gayen" in page and "protocol clean" in page and page.count("<script") == 0
    assert sizes == {"plain": 0, "few": 1, "all": 3}
    assert "images/3.png" in page and "cannot be read" in page


def test_controls_stand_in_the_table_the_numbers_and_the_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = {13: "no", 15: "no", 16: "left lung", 17: "organ 2", 18: "liver"}
    blank, twins = write(tmp_path / "b.csv", right | {15: "yes"}), write(tmp_path / "t.csv", {14: "no"})
    arguments = (write(tmp_path / "a.csv", right), "--data", "vqa_rad", "--root", data, "--report", tmp_path / "r.html")
    content = run(tmp_path / "out", *arguments, "--controls", f"blank={blank}", f"twins={twins}")
    found = {row["control"]: (row["questions"], row["accuracy"], row["changed"]) for row in content["controls"]}
    assert found["blank"] == (5, 80, 20) and found["twins"] == (1, 100, 0)
    shown = capsys.readouterr().out
    assert "The same questions asked otherwise" in shown and "blank, closed" in shown
    assert "blank, closed" in (tmp_path / "r.html").read_text()


def test_other_splits_and_protocols(data: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", {1: "yes", 13: "no"})
    arguments = (tmp_path / "a.csv", "--data", "vqa_rad", "--root", data, "--data.protocol", "paper")
    assert run(tmp_path / "out", *arguments)["questions"] == "VQA-RAD, protocol paper, test"
    assert "train" in run(tmp_path / "out", *arguments, "--split", "train")["questions"]


def test_several_files_stand_in_one_table_and_a_single_image_has_no_interval(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    right = {13: "no", 15: "no", 16: "left lung", 17: "organ 2", 18: "liver"}
    files = [write(tmp_path / f"{name}.csv", right | {15: name}) for name in "abc"]
    of_data = ("--data", "vqa_rad", "--root", data)
    run(tmp_path / "out", *files, *of_data)
    shown = capsys.readouterr().out
    assert shown.count("(images)") == 1
    assert shown.split("(images)")[1].split("\n")[0].split()[:3] == ["a", "b", "c"]
    assert shown.split("Means over questions")[0].split().count("nearest") == 1
    content = run(tmp_path / "out", files[0], *of_data)
    single = [row for row in content["rows"] if row["system"] == "a" and row["images"] == 1]
    cells = capsys.readouterr().out.split("Means over questions")[0].split()
    assert single and cells.count("-") == 1 + len({row["group"] for row in single})
