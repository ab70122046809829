"""Statements from SLAKE's questions: each as a reader would make it, and only of images that may be trained on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from datamodules import SLAKE, SLAKECaptions
from datamodules.slake_facts import captions, facts
from tests.datamodules.samples import picture
from umd.files import UserError

SAID = [
    ("What is the scanning plane of this image?", "Transverse  Plane", "transverse"),
    ("Is this a coronal section?", "Yes", "coronal"),
    ("Is this sagittal plane?", "No", None),
    ("Is this an MRI image with T1 weighted?", "Yes", "t1"),
    ("Is this an MRI image with T1 weighted?", "No", None),
    ("What is the mr weighting in this image?", "T2", "t2"),
    ("Is the lung healthy?", "No", "the lung is abnormal"),
    ("Is the lung unhealthy?", "No", "the lung is normal"),
    ("Does the kidneys look abnormal?", "No", "the kidneys are normal"),
    ("Is the liver not healthy?", "No", None),
    ("Does this image look normal?", "No", "the image is abnormal"),
    ("Is/Are there abnormalities in the patient's right lung?", "No", "the right lung is normal"),
    ("Which organ is abnormal, heart or lung?", "Both", "the heart and the lung are abnormal"),
    ("Which lobe is abnormal,left or right?", "Left", "the left lobe is abnormal"),
    ("What diseases are included in the picture?", "Unknown", None),
    ("What diseases are included in the picture?", "Mass, Noudle", "there is mass and nodule"),
    (
        "Can mass be observed on the lower right lung in this picture?",
        "No",
        "there is no mass in the lower right lung",
    ),
    ("What disease is/are shown on the left of lung?", "Pneumonia", "there is pneumonia on the left of the lung"),
    ("Where is/are the abnormality located?", "Left Lung, Right", "the abnormality is in the left lung, on the right"),
    ("Where is the pneumonia in the lung?", "Both lungs", "the pneumonia is in both lungs"),
    ("Where is the liver in this image,left,top or upper left?", "Left", "the liver is on the left"),
    ("Where is the small bowel in this image?", "Above the rectum", "the small bowel is above the rectum"),
    ("Where is the liver?", "Not seen", None),
    ("Does the picture contain brian?", "Yes", "brain"),
    ("Is there an esophagus in this image?", "No", "esophagus"),
    ("Does the picture contain the organ that could store urine?", "Yes", None),
    ("What is the main organ in the image?", "Lung, Heart", "the main organs are the lung and the heart"),
    ("What is the organ on the left side of this image?", "Liver", "the organ on the left side is the liver"),
    ("Which is smaller in this image,liver or lung?", "Lung", "of liver and lung the smaller is the lung"),
    ("Which is bigger in this image, liver or heart?", "Almost the same", None),
    ("How many kidneys in this image?", "2", "the number of kidneys is 2"),
    ("How many kidneys in this image?", "0", "kidneys"),
    ("What color does the left lung show in the picture?", "Black", "the left lung is black"),
    ("What is the shape of eyes in this image?", "Circular", "the eyes are circular"),
    ("How to treat the most severe disease in this image?", "Surgery", None),
]


@pytest.mark.parametrize(("question", "answer", "said"), SAID)
def test_what_a_question_says(question: str, answer: str, said: str | None) -> None:
    found = facts(question, answer)
    assert (None if found is None else found[1]) == said
    if found is not None and answer in ("No", "0") and said in ("esophagus", "kidneys"):
        assert found[0] == "unseen"


def row(image: str, number: int, question: str, answer: str, **more: object) -> dict[str, object]:
    told = {"img_name": image, "qid": number, "question": question, "answer": answer, "q_lang": "en"}
    return {**told, "answer_type": "OPEN", "modality": "MRI", "location": "Brain_Tissue", "content_type": "", **more}


def test_a_caption_begins_with_how_the_image_was_taken_and_is_cut_between_statements(tmp_path: Path) -> None:
    rows = [
        row("a.png", 0, "What is the mr weighting in this image?", "T2"),
        row("a.png", 1, "Does the picture contain liver?", "No"),
        row("a.png", 2, "Does the picture contain brian?", "Yes"),
        row("a.png", 3, "Is this a coronal plane?", "Yes"),
        row("a.png", 4, "Is the brain healthy?", "Yes"),
        row("a.png", 5, "Is the brain healthy?", "Yes"),
        row("a.png", 6, "Why?", "Nobody knows"),
        row("b.png", 7, "Why?", "Nobody knows"),
        row("c.png", 8, "Why?", "Nobody knows", modality=None, location=None),
        row("d.png", 9, "Which part of the body does this image belong to?", "Head"),
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    for number, name in enumerate("abcd"):
        picture(tmp_path / "imgs" / f"{name}.png", number)
    data = SLAKECaptions(str(tmp_path), validation_fraction=0, most_words=12)
    with pytest.warns(UserWarning, match="1 x image of which nothing is said, left out: imgs/c.png"):
        found = {record.image: (record.text, *record.alternative_texts) for record in data.records("train")}
    assert found == {
        "imgs/a.png": (
            "T2-weighted coronal MRI of the brain. The brain is normal.",
            "T2-weighted coronal MRI of the brain. It contains brain.",
            "T2-weighted coronal MRI of the brain. It contains no liver.",
        ),
        "imgs/b.png": ("MRI of the brain.",),
        "imgs/d.png": ("MRI of the head.",),
    }
    assert not data.has_split("validation")
    (tmp_path / "train.json").rename(tmp_path / "validate.json")
    with pytest.raises(UserError, match=r"SLAKE captions: looked in .* for imgs/ and train\.json"):
        SLAKECaptions(str(tmp_path)).setup("fit")


def test_nothing_is_said_of_images_that_are_measured_on(shared_data: Path) -> None:
    root = shared_data / "slake"
    rows = {name: json.loads((root / f"{name}.json").read_text()) for name in ("train", "validate")}
    named = {name: {f"imgs/{one['img_name']}" for one in content} for name, content in rows.items()}
    data = SLAKECaptions(str(root))
    data.setup("fit")
    train, validation = ({record.image for record in data.records(split)} for split in ("train", "validation"))
    assert len(train) + len(validation) == 450 and train | validation == named["train"]
    assert not (train | validation) & named["validate"] and not train & validation
    assert not data.has_split("test")

    # What protocol `clean` carves where train.json stands alone.
    alone = SLAKE(str(root))
    records = alone.read_published(data._problems)["train"]
    alone.read_published = lambda problems: {"train": records}  # type: ignore[method-assign]
    assert {record.image for record in alone.read(data._problems)["validation"]} == validation


def test_most_of_what_is_asked_about_an_image_is_told(shared_data: Path) -> None:
    data = SLAKE(str(shared_data / "slake"))
    asked, told = Counter[str](), Counter[str]()
    for record in data.records("train"):
        asked[record.question_type] += 1
        told[record.question_type] += facts(record.question, record.published_answer) is not None
    for kind in ("Position", "Organ", "Size", "Abnormality", "Quantity", "Shape", "Color"):
        assert told[kind] > 0.9 * asked[kind], kind
    assert told["KG"] == 0  # what is known of diseases and organs, and not seen
    assert captions([], 40) == ()
