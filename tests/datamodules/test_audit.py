"""What an audit finds, against what was planted."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datamodules import VQARAD, HubVQA, OwnVQA, VQAMed2019
from datamodules.audit import ANSWERS, IMAGES, REPEATED, TWINS, audit
from tests.datamodules.samples import picture
from tests.datamodules.test_hub import write_hub
from umd.cli import main

Line = tuple[str, str, str]

TRAIN: list[Line] = [
    ("a.png", "Is there a mass in the liver?", "yes"),  # reworded by test 1
    ("a.png", "is there a mass in the liver", "no"),  # the same again, and another answer
    ("b.png", "Which organ is shown?", "lung"),  # asked again in test 2, with another answer
    ("c.png", "Which organ is shown?", "heart"),
    ("c.png", "Which organ is shown?", "heart"),
    ("d.png", "Where is the lesion?", "left"),
]
VALIDATION: list[Line] = [("e.png", "Where is the lesion?", "right")]
TEST: list[Line] = [
    ("a.png", "Does the liver have a mass?", "yes"),
    ("b.png", "Which organ is shown?", "lungs"),
    ("e.png", "Where is the lesion?", "above"),
    ("f.png", "Which organ is shown?", "heart"),
]


def written(root: Path, **splits: Sequence[Line]) -> OwnVQA:
    """Tables without images."""
    root.mkdir()
    for split, lines in splits.items():
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "question", "answer"), *lines])
    return OwnVQA(str(root))


def between(facts: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [one for one in facts["between"] if (one["from"], one["to"]) == (first, second)]
    return found


def test_what_is_planted_is_found_without_images(tmp_path: Path) -> None:
    found = audit(written(tmp_path / "data", train=TRAIN, validation=VALIDATION, test=TEST))
    facts = found.facts
    assert (facts["images"], facts["image_files"]) == (6, 0)
    train = facts["splits"]["train"]
    assert (train["rows"], train["images"], train["distinct_questions"], train["distinct_answers"]) == (6, 4, 3, 5)
    assert (train["repeated_rows"], train["repeated_pairs_that_disagree"]) == (2, 1)

    tested = between(facts, "train", "test")
    assert (tested["shared_images"], tested["on_shared_images"]) == (2, 50)
    assert (tested["twins"], tested["with_twin"], tested["with_twin_of_the_same_answer"]) == (3, 2, 1)
    assert (tested["repeated_pairs"], tested["with_twin_share"]) == (1, 50)
    assert (tested["marked_twins"], tested["marked_twins_found"]) == (1, 1)  # by equal text alone: of image b
    assert between(facts, "validation", "test")["twins"] == 1
    assert between(facts, "train", "validation")["twins"] == 0

    # "lungs" and "above" are outside train; only with the twin of test 1 is there a "yes".
    overall = next(group for group in tested["answers"] if group["group"] == "overall")
    assert (overall["rows"], overall["outside_train"], overall["ceiling"]) == (4, 2, 50)
    assert (overall["ceiling_without_twins"], overall["ceiling_without_shared_images"]) == (25, 25)
    rows = {name: [(row["split"], row["question"]) for row in found.files[name]] for name in (TWINS, REPEATED, ANSWERS)}
    assert rows[TWINS] == [
        ("train", TRAIN[0][1]),
        ("train", TRAIN[1][1]),
        ("train", TRAIN[2][1]),
        ("validation", VALIDATION[0][1]),
    ]
    assert len(rows[REPEATED]) == 2 + 2 + 2 + 2
    assert rows[ANSWERS] == [("validation", "Where is the lesion?"), ("test", TEST[1][1]), ("test", TEST[2][1])]
    assert [(row["image"], row["train_rows"], row["test_rows"]) for row in found.files[IMAGES]] == [
        ("a.png", 2, 1),
        ("b.png", 1, 1),
        ("e.png", 0, 1),
    ]


def test_equal_files_and_published_numbers_are_one_image_whatever_their_names(tmp_path: Path) -> None:
    root = tmp_path / "data"
    data = written(
        root,
        train=[
            ("a.png", "Is it large?", "no"),
            ("x/synpic7.png", "Is it round?", "no"),
            ("c.png", "Is it dark?", "no"),
        ],
        test=[("b.png", "Is it large?", "no"), ("y/synpic7.png", "Is it round?", "no"), ("d.png", "Is it dark?", "no")],
    )
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        picture(root / f"{name}.png", seed)
    facts = audit(data).facts
    assert (facts["images"], facts["image_files"]) == (4, 4)
    assert between(facts, "train", "test")["shared_images"] == between(facts, "train", "test")["twins"] == 2


def test_a_copy_of_the_hub_in_path_vqas_layout(tmp_path: Path) -> None:
    pictures = []
    for seed in range(3):
        picture(tmp_path / f"{seed}.png", seed)
        pictures.append(tmp_path / f"{seed}.png")
    asked = ["What is present?", "Where are liver stem cells located?", "Is there necrosis?"]
    write_hub(tmp_path / "copy", "train", pictures, asked, ["vessel", "in the canals of hering", "yes"])
    held_out = ["In what place are the stem cells of the liver located?", "Is there necrosis?"]
    write_hub(tmp_path / "copy", "test", pictures[1:][::-1], held_out[::-1], ["no", "in the canals of hering"])
    write_hub(tmp_path / "copy", "validation", pictures[:1], ["What is shown?"], ["gland"])
    found = audit(HubVQA(str(tmp_path / "copy")))
    tested = between(found.facts, "train", "test")
    assert (tested["shared_images"], tested["twins"], tested["with_twin_of_the_same_answer"]) == (2, 2, 1)
    assert {row["equal_words"] for row in found.files[TWINS]} == {True, False}
    assert between(found.facts, "train", "validation")["answers"][0]["outside_train"] == 1


def test_vqa_med_2019_from_its_questions_alone(shared_data: Path) -> None:
    facts = audit(VQAMed2019(str(shared_data / "text_only" / "vqa_med_2019"))).facts
    assert [facts["splits"][split]["rows"] for split in ("train", "validation", "test")] == [9600, 1500, 375]
    assert all(one["shared_images"] == one["twins"] == 0 for one in facts["between"])


def test_the_command_writes_what_it_shows_and_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("datamodules.images.decode", refuse)
    out = tmp_path / "out"
    command = ["data", "--data", "PhantomVQA", "--data.root", str(tmp_path / "phantom"), "--data.size", "30"]
    command += ["--data.cache", str(tmp_path / "cache")]
    main([*command, "--audit", "--out", str(out)])
    shown = capsys.readouterr().out
    facts = json.loads((out / "audit.json").read_text())
    tested = between(facts, "train", "test")
    assert tested["marked_twins"] > 0 and f"marks {tested['marked_twins']:,} of them" in shown
    with (out / TWINS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == tested["twins"]
    assert len({row["id"] for row in rows if row["marked"] == "true"}) == tested["marked_twins_found"]
    with pytest.raises(SystemExit):
        main([*command, "--audit", "--picture", str(tmp_path / "a.png")])
    assert "give --against and --picture in another call" in capsys.readouterr().err


def test_which_of_two_forms_is_read_is_said_once(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "datamodules")
    audit(VQARAD(str(shared_data / "vqa_rad")))
    assert caplog.text.count("read from 'VQA_RAD Dataset Public.json'") == 1


def test_captions_have_no_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--audit"], ["--export_split", str(tmp_path / "ids")]):
        with pytest.raises(SystemExit):
            main(["data", "--data", "PhantomCaptions", "--data.root", str(tmp_path / "c"), "--data.size", "9", *option])
        assert f"{option[0]} is for data sets of questions" in capsys.readouterr().err
