"""Changed questions: what is changed, and that nothing else is, whatever asks for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datamodules import VQARAD, PhantomVQA
from datamodules.vqa_rad import SINGLE_FILE
from umd.batch import VQABatch

GREY = torch.full((3, 32, 32), 0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PhantomVQA:
    made = PhantomVQA(str(tmp_path_factory.mktemp("phantom") / "data"), size=24, image_size=32, batch_size=5)
    made.prepare_data()
    return made


def asked(data: VQARAD, control: str, places: Sequence[int]) -> list[VQABatch]:
    return list(data.changed_dataloader(data.controls(GREY)[control], places))


def named(batch: VQABatch) -> list[tuple[str, Tensor]]:
    return list(zip(batch.image_names, batch.per_pair(batch.image), strict=True))


def joined(batches: list[VQABatch], field: str) -> list[str]:
    return [one for batch in batches for one in getattr(batch, field)]


def places_of(data: VQARAD) -> range:
    return range(len(data.records("test")))


def test_another_image_is_never_the_questions_own_and_is_named(data: PhantomVQA) -> None:
    own = [batch for batch in data.test_dataloader()]
    pictures = {name: image for batch in own for name, image in named(batch)}
    others = asked(data, "other image", places_of(data))
    names = joined(others, "image_names")
    assert all(name != record.image for name, record in zip(names, data.records("test"), strict=True))
    assert len(set(names)) == len(pictures)
    for batch in others:
        assert all(torch.equal(pictures[name], image) for name, image in named(batch))
    assert joined(others, "texts") == joined(own, "texts")


def test_shuffled_words_are_the_questions_own_and_are_read_anew(data: PhantomVQA) -> None:
    own = list(data.test_dataloader())
    shuffled = asked(data, "shuffled words", places_of(data))
    for before, after in zip(own, shuffled, strict=True):
        assert torch.equal(before.image, after.image)
        assert not torch.equal(before.input_ids, after.input_ids)
        assert [sorted(row) for row in before.input_ids.tolist()] == [sorted(row) for row in after.input_ids.tolist()]
    for text, other in zip(joined(own, "texts"), joined(shuffled, "texts"), strict=True):
        assert other != text and other[-1] == text[-1] == "?"
        assert Counter(other[:-1].split()) == Counter(text[:-1].split())


def test_what_is_drawn_depends_on_the_question_alone(data: PhantomVQA) -> None:
    for control in ("noise", "other image", "shuffled words"):
        whole = asked(data, control, places_of(data))
        some = asked(data, control, [7, 3])
        assert joined(some, "texts") == [joined(whole, "texts")[place] for place in (7, 3)]
        images = torch.cat([batch.per_pair(batch.image) for batch in whole])
        assert torch.equal(some[0].per_pair(some[0].image), images[[7, 3]])
        assert torch.cat([batch.index for batch in some]).tolist() == [7, 3]


def test_one_image_is_that_one(data: PhantomVQA) -> None:
    (batch,) = asked(data, "blank image", [0, 1])
    assert torch.equal(batch.per_pair(batch.image), GREY.expand(2, -1, -1, -1))


@pytest.mark.parametrize("protocol", ["clean", "paper", "disjoint"])
@pytest.mark.parametrize("form", ["single", "split"])
def test_a_twin_is_the_framed_form_whichever_files_are_read(shared_data: Path, form: str, protocol: str) -> None:
    root = shared_data / "vqa_rad"
    data = VQARAD(str(root), annotations=form, protocol=protocol)  # type: ignore[arg-type]
    frames = {
        (Path(row["image_name"]).name, row["question"].strip()): row["question_frame"].strip()
        for row in json.loads((root / SINGLE_FILE).read_text())
        if row["phrase_type"].startswith("test") and row["question_frame"] != "NULL"
    }
    found = {
        (Path(record.image).name, record.question.strip()): twin
        for record in data.records("test")
        if (twin := data.twin_of(record)) is not None
    }
    assert {key: twin.question.strip() for key, twin in found.items()} == frames
    assert len(frames) == 284 and all(Path(twin.image).name == image for (image, _), twin in found.items())
