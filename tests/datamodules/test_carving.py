"""Validation carved out of train, by image or by question, in folds: against the rows as they are published."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pytest

from datamodules import SLAKE, VQARAD, OwnVQA, SLAKECaptions
from datamodules.carving import CarvedBy, carve
from datamodules.exported_splits import exported
from datamodules.problems import Problems
from datamodules.questions import VQARecord
from datamodules.vqa import VQADataModule
from datamodules.vqa_rad import SINGLE_FILE
from umd.files import UserError


def questions(images: int, each: int) -> list[VQARecord]:
    return [
        VQARecord(f"{image}-{number}", f"{image}.png", f"Question {number}?", "yes", True, "")
        for image in range(images)
        for number in range(each)
    ]


def held_out(records: list[VQARecord], fraction: float, by: CarvedBy, fold: int = 0) -> set[str]:
    kept, validation = carve(records, fraction, by, fold)
    assert sorted(kept + validation, key=records.index) == records and kept and validation
    return {record.sample_id for record in validation}


@pytest.mark.parametrize(("by", "units"), [("image", 13), ("question", 52)])
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_hold_out_every_row_once(by: CarvedBy, units: int, folds: int) -> None:
    records = questions(13, 4)
    found = [held_out(records, 1 / folds, by, fold) for fold in range(folds)]
    assert sorted(name for fold in found for name in fold) == sorted(record.sample_id for record in records)
    counts = [len({name.partition("-")[0] for name in fold} if by == "image" else fold) for fold in found]
    assert counts[0] == round(units / folds) and max(counts) - min(counts) <= 1
    assert held_out(records, 1 / folds, by) == found[0]
    with pytest.raises(UserError, match=f"validation_fold must be 0 to {folds - 1}, not {folds}: .* of {units} {by}s"):
        carve(records, 1 / folds, by, folds)


def test_each_fold_holds_something_out_however_small_the_share() -> None:
    records = questions(3, 1)
    assert set.union(*(held_out(records, 0.01, "image", fold) for fold in range(3))) == {"0-0", "1-0", "2-0"}
    assert len(held_out(records, 0.99, "image")) == 2


@pytest.mark.parametrize("by", ["image", "question"])
def test_what_is_held_out_depends_on_no_order_and_no_id(by: CarvedBy) -> None:
    records = questions(10, 3)
    shuffled = random.Random(0).sample(records, len(records))
    assert held_out(records, 0.2, by, 1) == held_out(shuffled, 0.2, by, 1)


def test_equal_words_about_one_image_stay_together_where_nothing_links_rows(tmp_path: Path) -> None:
    lines = [
        f"{image}.png,{words},yes" for image in range(9) for words in ("Is it large?", " is it LARGE? ", "A cyst?")
    ]
    (tmp_path / "train.csv").write_text("\n".join(["image,question,answer", *lines]))
    data = OwnVQA(str(tmp_path), validation_fraction=0.5, validation_by="question")
    splits = data.read(Problems(data.title))
    sides = [{(row.image, row.question.lower()) for row in splits[name]} for name in ("train", "validation")]
    assert not sides[0] & sides[1] and len(sides[1]) == 9
    assert {image for image, _ in sides[0]} & {image for image, _ in sides[1]}


@pytest.mark.parametrize("told", [{"validation_fold": 3}, {"validation_by": "question"}])
@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        (VQARAD, {"protocol": "paper"}, "protocol paper validates on the published split or the test split"),
        (VQARAD, {"validation_fraction": 0}, "validation_fraction is 0"),
        (SLAKE, {}, "SLAKE has a validation split of its own"),
    ],
)
def test_a_share_is_refused_where_none_is_carved(
    shared_data: Path, kind: type[VQADataModule], given: dict[str, Any], why: str, told: dict[str, Any]
) -> None:
    data = kind(str(shared_data / {VQARAD: "vqa_rad", SLAKE: "slake"}[kind]), **given, **told)
    for use in (lambda: data.setup("fit"), data.summary):
        with pytest.raises(UserError, match=f"{why}: leave both out"):
            use()
    assert data.read(Problems(data.title))["train"]  # as exported, in every protocol


def rewordings(root: Path) -> set[tuple[str, str, str]]:
    """(image, words, words) of the forms of each training row of the original file, framed test rows included."""
    found = set()
    for row in json.loads((root / SINGLE_FILE).read_text()):
        forms = [row.get(name, "NULL") for name in ("question", "question_rephrase", "question_frame")]
        words = [str(form).strip().lower() for form in forms if str(form).strip() not in ("", "NULL")]
        found |= {(row["image_name"], *pair) for pair in combinations(words, 2)}
    return found


@pytest.mark.parametrize("form", ["single", "split"])
@pytest.mark.parametrize("fold", [0, 3])
def test_no_question_of_vqa_rad_is_reworded_across_and_images_are_shared(
    shared_data: Path, form: Literal["single", "split"], fold: int
) -> None:
    root = shared_data / "vqa_rad"
    data = VQARAD(str(root), annotations=form, validation_by="question", validation_fold=fold, seed=fold)
    train, validation = data.records("train"), data.records("validation")
    assert len(train) + len(validation) == 2772 and data.records("test") == VQARAD(str(root)).records("test")
    side = {
        (Path(row.image).name, row.question.lower()): name
        for name, rows in (("train", train), ("validation", validation))
        for row in rows
    }
    for image, *forms in rewordings(root):
        assert len({side[image, words] for words in forms if (image, words) in side}) < 2
    assert all(side[Path(row.image).name, row.question.lower()] == "train" for row in train)
    groups = [len({(row.image, row.linked) for row in rows}) for rows in (train, validation)]
    assert groups[1] in (round(0.1 * sum(groups)), round(0.1 * sum(groups)) - 1)
    images = [{row.image for row in rows} for rows in (train, validation)]
    assert len(images[0] & images[1]) > 0.95 * len(images[1]) > 80
    assert f"by question, fold {fold}, rewordings on one side, " in data.description["validation carved"]


def test_both_forms_link_the_same_rows(shared_data: Path) -> None:
    root = str(shared_data / "vqa_rad")
    forms: tuple[Literal["single", "split"], ...] = ("single", "split")
    single, split = (VQARAD(root, annotations=form, validation_by="question").published() for form in forms)
    assert single == split


def test_settings_bring_the_same_split_back(shared_data: Path) -> None:
    data = VQARAD(str(shared_data / "vqa_rad"), validation_by="question", validation_fold=2)
    assert VQARAD(**dict(data.hparams)).published() == data.published()
    assert data.published()["validation"] != VQARAD(str(shared_data / "vqa_rad")).published()["validation"]


def test_a_test_that_shares_no_image_is_validated_by_image(shared_data: Path) -> None:
    root = str(shared_data / "vqa_rad")
    with pytest.raises(UserError, match="protocol disjoint has none of them: leave it at 'image'"):
        VQARAD(root, protocol="disjoint", validation_by="question")
    texts, refused = exported(VQARAD(root, validation_by="question"))
    assert set(refused) == {"disjoint"} and "clean_validation.csv" in texts
    with pytest.raises(UserError, match="validation_by must be 'image' or 'question', not 'row'"):
        SLAKE(root, validation_by="row")  # type: ignore[arg-type]


def test_captions_tell_no_answer_that_is_validated(shared_data: Path) -> None:
    root = str(shared_data / "slake")
    captions = SLAKECaptions(root, validation_by="question", validation_fraction=0.5)
    other = SLAKECaptions(root, validation_by="question", validation_fraction=0.5, validation_fold=1)
    told = captions.read_published(Problems("SLAKE"))
    assert {row.image for row in told["train"]} & {row.image for row in told["validation"]}
    swapped = other.read_published(Problems("SLAKE"))
    assert {row.text for row in swapped["validation"]} == {row.text for row in told["train"]}
