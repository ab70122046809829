"""`umd data` against what pandas finds in the same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from lightning import LightningModule
from PIL import Image

from datamodules import VQARAD
from datamodules.answers import normalize_answer
from datamodules.baselines import MostFrequentAnswer
from datamodules.questions import VQARecord
from datamodules.vqa_rad import SINGLE_FILE
from tests.datamodules.samples import medpix_line, picture, row, write_medpix, write_vqa
from umd.cli import main
from umd.files import write_whole
from umd.reproduce.graph import Benchmark, Graph
from umd.reproduce.scales import Setting

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: LightningModule, *args: object, **kwargs: object) -> None:
        raise AssertionError("a model was made")

    monkeypatch.setattr(LightningModule, "__init__", refuse)


def run(out: Path, *arguments: object) -> dict[str, Any]:
    main(["data", *map(str, arguments), "--out", str(out)])
    assert not list(out.glob(".*"))
    facts: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return facts


def rows(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, true_values=["true"], false_values=["false"])


def field_splits(file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train (all framed questions included, `twin` marked) and test, from the original file's layout."""
    table = pd.DataFrame(json.loads(file.read_text()))
    table["answer"] = table["answer"].map(normalize_answer)
    table["closed"] = table["answer_type"].str.strip() == "CLOSED"
    is_test = table["phrase_type"].str.startswith("test")
    framed = table[~table["question_frame"].isin(["NULL"]) & table["question_frame"].notna()]
    train = pd.concat([table[~is_test], framed.assign(question=framed["question_frame"])])
    test = table[is_test].reset_index(drop=True)
    forms = {
        (row["image_name"], str(row[form]).strip().lower())
        for _, row in test.iterrows()
        for form in ("question", "question_rephrase", "question_frame")
        if form in test and row[form] != "NULL" and not pd.isna(row[form])
    }
    keys = zip(train["image_name"], train["question"].str.strip().str.lower(), strict=True)
    train["twin"] = [key in forms for key in keys]
    return train, test


def per_cent(flags: pd.Series) -> float:
    return 100 * float(flags.mean())


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_questions_of_a_phantom(tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "phantom", tmp_path / "out"
    overlay = ("--data.root", root, "--data.size", 60, "--data.validation_fraction", 0, "--data.protocol", protocol)
    facts = run(out, "--config", CONFIGS / "vqa.yaml", *overlay, "--needs_test")
    found = rows(out / "test_questions.csv")
    train, test = field_splits(root / SINGLE_FILE)
    if protocol == "clean":
        train = train[~train["twin"]]
    assert (facts["class"], facts["description"]["protocol"]) == ("datamodules.PhantomVQA", protocol)
    assert facts["splits"]["train"]["rows"] == len(train) and facts["splits"]["test"]["rows"] == len(test)
    assert facts["splits"]["train"]["with_twin"] == train["twin"].sum()
    assert facts["splits"]["train"]["images"] == train["image_name"].nunique()
    known = set(train["answer"]) | (set(test["answer"]) if protocol == "paper" else set())
    assert facts["answers"] == len(known)

    assert found["index"].tolist() == list(range(len(test)))
    for column in ("question", "question_type", "answer", "closed"):
        assert found[column].tolist() == test[column].tolist()
    assert found["image"].tolist() == ("images/" + test["image_name"]).tolist()
    assert all(Path(facts["root"], name).is_file() for name in found["image"])
    assert found["answerable"].tolist() == test["answer"].isin(known).tolist()
    assert found["image_in_train"].tolist() == test["image_name"].isin(train["image_name"]).tolist()
    counts = train.groupby(["question_type", "answer"]).size().rename("count").reset_index()
    best = counts.sort_values(["count", "answer"], ascending=[False, True]).drop_duplicates("question_type")
    expected = test["question_type"].map(best.set_index("question_type")["answer"])
    assert expected.notna().all() and found["most_frequent_answer"].tolist() == expected.tolist()

    right = found["most_frequent_answer"] == found["answer"]
    groups = {group["group"]: group for group in facts["test"]["groups"]}
    members = {
        "open": ~found["closed"],
        "closed": found["closed"],
        "overall": found["closed"].notna(),
        "twin-free": ~found["has_twin"],
    }
    for name, chosen in members.items():
        assert groups[name]["questions"] == chosen.sum() > 0
        assert groups[name]["ceiling"] == pytest.approx(per_cent(found["answerable"][chosen]))
        of_train = test["answer"].isin(train["answer"])[chosen]
        assert groups[name]["ceiling_of_training_answers"] == pytest.approx(per_cent(of_train))
        assert groups[name]["most_frequent_answer"] == pytest.approx(per_cent(right[chosen]))
        assert groups[name]["image_in_train"] == pytest.approx(per_cent(found["image_in_train"][chosen]))
    shown = capsys.readouterr().out
    assert f"{facts['answers']} answers in the vocabulary" in shown
    # No image is held out; under `paper` the test split validates.
    assert ("there is no validation split" in shown) == (protocol == "clean")


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_real_vqa_rad(shared_data: Path, tmp_path: Path, protocol: str) -> None:
    root = shared_data / "vqa_rad"
    overlay = ("--config", CONFIGS / "data" / "vqa_rad.yaml", "--data.root", root, "--data.protocol", protocol)
    facts = run(tmp_path, *overlay, "--data.validation_fraction", 0)
    found = rows(tmp_path / "test_questions.csv")
    train, test = field_splits(root / SINGLE_FILE)
    assert (len(train), train["twin"].sum(), len(test)) == (3064, 292, 451)
    train = train[~train["twin"]] if protocol == "clean" else train
    assert len(found) == 451 and (~found["has_twin"]).sum() == 165
    assert found["answer"].tolist() == test["answer"].tolist()
    overall = next(group for group in facts["test"]["groups"] if group["group"] == "overall")
    reachable = per_cent(test["answer"].isin(train["answer"]))
    assert overall["ceiling_of_training_answers"] == pytest.approx(reachable)
    assert overall["ceiling"] == pytest.approx(reachable if protocol == "clean" else 100)
    images_of_train = set(train["image_name"])
    assert found["image_in_train"].tolist() == test["image_name"].isin(images_of_train).tolist()


def test_texts_answers_and_samples_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [row(200, "1.png", " ".join(["why"] * 50) + " $x$?", "yes")]
    root, sheet = write_vqa(tmp_path / "data", rows=asked), tmp_path / "made" / "samples.png"
    given = ["--data", "VQARAD", "--data.root", root, "--data.validation_fraction", 0, "--data.image_size", 24]
    facts = run(tmp_path / "out", *given, "--picture", sheet)
    # 53 tokens and both ends: more than 32.
    train = facts["text_lengths"]["train"]
    assert (train["cut"], train["of"]) == (1, 13) and train["longest"] >= 52
    assert facts["most_frequent_answers"][0] == {"answer": "yes", "train": 7, "test": 0}
    assert "[CLS] is there lesion number 0" in " ".join(capsys.readouterr().out.split())
    with Image.open(sheet) as drawn:
        assert drawn.width > drawn.height
    (one, *_, last) = VQARAD(str(root), validation_fraction=0, image_size=24).samples("train", 13)
    assert one.original.size == (40, 30) and one.image.shape == (3, 24, 24) and len(last.tokens) == 32
    assert one.told == "is there lesion number 0?\nyes"
    with pytest.raises(SystemExit):
        main(["data", *map(str, given), "--picture", "samples.txt"])
    assert "--picture: 'samples.txt' must end in one of .png" in capsys.readouterr().err


def test_classes_of_a_phantom(tmp_path: Path) -> None:
    root, out = tmp_path / "phantom", tmp_path / "out"
    facts = run(out, "--config", CONFIGS / "classification.yaml", "--data.root", root, "--data.size", 50)
    train, test = (pd.read_csv(root / f"{name}.csv") for name in ("train", "test"))
    counts = train["i_meth"].value_counts()
    assert facts["splits"]["train"]["classes"] == counts.to_dict()
    majority = min(counts[counts == counts.max()].index)
    assert facts["test"]["most_frequent_label"] == majority
    assert facts["test"]["most_frequent_label_accuracy"] == pytest.approx(per_cent(test["i_meth"] == majority))
    found = rows(out / "test_rows.csv")
    assert found["label"].tolist() == test["i_meth"].tolist()
    assert found["sample_id"].tolist() == [f"test.csv:{number}" for number in range(1, len(test) + 1)]
    assert set(found["most_frequent_label"]) == {majority}


def test_captions_have_rows_and_images_alone(tmp_path: Path) -> None:
    facts = run(tmp_path / "out", "--data", "PhantomCaptions", "--data.root", tmp_path / "phantom", "--data.size", 20)
    assert facts["splits"]["train"] == {"rows": 20, "image_unusable": 0, "images": 20}
    assert facts["test_file"] is None and [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]


def test_the_most_frequent_answer_of_a_type_then_of_the_kind_then_of_all() -> None:
    def record(question_type: str, answer: str, closed: bool) -> VQARecord:
        return VQARecord("1", "a.png", "?", answer, closed, question_type)

    training = [record("organ", answer, False) for answer in ("lung", "heart", "lung", "heart", "brain")]
    guess = MostFrequentAnswer([*training, record("side", "left", False), *[record("yes/no", "no", True)] * 4])
    assert guess(record("organ", "", False)) == "heart"  # as often as "lung", which comes later in the alphabet
    assert guess(record("organ", "", True)) == "heart"
    assert guess(record("unseen", "", False)) == "heart"
    assert guess(record("unseen", "", True)) == "no"
    assert MostFrequentAnswer(training)(record("unseen", "", True)) == "heart"
    with pytest.raises(ValueError, match="no training rows"):
        MostFrequentAnswer([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.size", "3"], "which data set?"),
        (["--config", "absent.yaml"], "there is no file 'absent.yaml'"),
        (["--data", "SLAKE", "--data.root", "absent"], "SLAKE: looked in absent for imgs/"),
        (["--data", "SLAKE", "--data.root", "absent"], "there is no such folder (--data.root says where it is)"),
        (["--data", "SLAKE", "--data.root", __file__], "that is a file, not a folder (--data.root is the folder)"),
        (["--config", str(CONFIGS / "paper" / "encoders.yaml")], "which data set?"),
    ],
)
def test_mistakes_end_in_the_users_words(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", *arguments])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and "Traceback" not in error


def test_what_needs_a_test_split_ends_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here by the words of `umd reproduce`, so that its script stops where it does itself."""
    root, out = tmp_path / "slake", tmp_path / "out"
    (root / "imgs").mkdir(parents=True)
    asked = {"img_name": "a.png", "q_lang": "en", "question": "where?", "answer": "left", "answer_type": "OPEN"}
    Image.new("RGB", (40, 30)).save(root / "imgs" / "a.png")
    for number, split in enumerate(("train", "validate")):
        (root / f"{split}.json").write_text(json.dumps([{**asked, "qid": number}]))
    step = Graph(Setting("small", tmp_path)).data(Benchmark("vqa", "slake", "clean", 0))
    configs = [word for name in step.configs for word in ("--config", str(CONFIGS / name))]
    words = [step.command, *configs, *step.options, "--out", str(out), "--data.tokenizer", "embedded"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and not out.exists()
    printed = capsys.readouterr()
    assert "SLAKE: no test split in" in printed.err and not printed.out
    main([word for word in words if word != "--needs_test"])
    assert set(json.loads((out / "summary.json").read_text())["splits"]) == {"train", "validation"}
    (root / "test.json").write_text(json.dumps([{**asked, "qid": 2}]))
    main(words)
    assert "test" in json.loads((out / "summary.json").read_text())["splits"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary.json"
    write_whole(file, "old")

    def fail(*paths: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_whole(file, "new")
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_images_that_two_data_sets_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rad = write_vqa(tmp_path / "rad")
    for number in range(6):
        picture(rad / "images" / f"{number}.png", number)
    medpix = write_medpix(
        tmp_path / "medpix",
        {"train": [medpix_line(number, "A finding.") for number in (10, 11)], "test": [medpix_line(12, "A finding.")]},
    )
    # Image 0 is tested on and trained on; image 5 is trained on alone.
    for copy, original in (("11", "0"), ("12", "5")):
        shutil.copy(rad / "images" / f"{original}.png", medpix / "images" / f"MPX1_synpic{copy}.png")
    config = ("--config", CONFIGS / "data" / "medpix.yaml", "--data.root", medpix)
    facts = run(tmp_path / "out", *config, "--against", f"VQARAD={rad}", f"MedPixCaptions={medpix}")
    first, itself = facts["shared_images"]
    assert (first["data"], first["images"], first["shared"]["same_file"]) == ("VQA-RAD", 6, 2)
    splits = {(found["here"], found["there"]): found["first"] for found in first["by_split"]}
    assert splits[("train", "test")] == [["images/MPX1_synpic11.png", "images/0.png"]]
    assert splits[("train", "train")] == splits[("train", "test")]
    assert ("test", "test") not in splits and itself["shared"]["same_id"] == 3
    pairs = rows(tmp_path / "out" / "shared_images.csv")
    assert pairs["image"].tolist()[:2] == ["images/MPX1_synpic11.png", "images/MPX1_synpic12.png"]
    assert pairs["other_splits"][0] == "train test" and pairs["same_file"].all() and len(pairs) == 2 + 3
    shown = capsys.readouterr().out
    assert "2 images of MedPix are among the 6 of VQA-RAD" in shown and "shared_images.csv" in shown
    with pytest.raises(SystemExit):
        main(["data", *map(str, config), "--against", str(rad)])
    assert "is named as CLASS=FOLDER" in capsys.readouterr().err
