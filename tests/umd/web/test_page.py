"""What the page shows of an image and a text, without a browser and without a server."""

from __future__ import annotations

import base64
import re
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import umd
from datamodules.questions import VQARecord
from tests.umd.web.files import png_that_claims
from umd.files import UserError
from umd.inference import Inputs, Model
from umd.web.asking import MOST_CHARACTERS, MOST_TEXTS, ask, prepare
from umd.web.browsing import PAGE, Chosen, TestQuestions
from umd.web.images import from_png
from umd.web.shown import escaped, third

QUESTION = "Where is the lesion?"


@pytest.fixture(scope="module")
def model(classifier_run: Path) -> Model:
    return umd.load(classifier_run)


def images(run_folder: Path) -> list[Path]:
    return sorted((run_folder.parents[2] / "data").rglob("*.jpg"))[:3]


def content(size: tuple[int, int] = (200, 90), kind: str = "PNG") -> bytes:
    """A file of noise."""
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def text_of(shown: str) -> str:
    """What a reader sees."""
    return " ".join(re.sub(r"<[^>]*>", " ", shown).split())


def test_the_page_gives_the_answers_that_python_gives(model: Model, classifier_run: Path) -> None:
    first, second, _ = images(classifier_run)
    shown = [ask(model, prepare(model, image.read_bytes()).image, QUESTION) for image in (first, second)]
    assert shown[0] != shown[1]
    for image, found in zip((first, second), shown, strict=True):
        expected = model.check_image(image, QUESTION)
        told = text_of(found)
        for answer in expected.reply.answers:
            assert f"{answer.text} {answer.probability:.3f}" in told
        assert text_of(escaped(str(expected))) in told and umd.NOTICE in told and QUESTION in told
        assert told.count("need not sum to 1") == 1
        assert found.count("<img ") == 2 and 'alt=""' not in found and len(re.findall("<mark", found)) == 5


def test_what_is_asked_about_is_every_pixel_that_the_model_reads(model: Model) -> None:
    prepared = prepare(model, content())
    square = np.asarray(from_png(prepared.image)).transpose(2, 0, 1)
    np.testing.assert_array_equal(square, model.preparation.image(Image.open(BytesIO(content()))))
    np.testing.assert_array_equal(model.preparation.image(from_png(prepared.image)), square)
    assert Image.open(BytesIO(base64.b64decode(prepared.preview.partition(",")[2]))).size == (200, 90)


def test_the_other_kinds_of_models_answer_too(classification_run: Path, retrieval_run: Path) -> None:
    kinds = umd.load(classification_run)
    image = images(classification_run)[0]
    shown = text_of(ask(kinds, prepare(kinds, image.read_bytes()).image, ""))
    assert kinds.classify(image).best.text in shown and "With a blank image" in shown and "sum to 1" not in shown
    ranking = umd.load(retrieval_run)
    image = images(retrieval_run)[0]
    shown = text_of(ask(ranking, prepare(ranking, image.read_bytes()).image, "a head\n\n a chest \n"))
    assert ranking.rank(image, ["a head", "a chest"]).best.text in shown and "blank" not in shown


def test_a_model_that_gives_scores_alone_shows_no_picture(model: Model) -> None:
    class Scores:
        """As an exported program gives them."""

        def scores(self, inputs: Inputs) -> NDArray[np.float32]:
            return model.network.scores(inputs)

    alone = Model(Scores(), model.preparation, model.settings)
    image = prepare(model, content()).image
    shown = ask(alone, image, QUESTION)
    assert "<img" not in shown and "answers alone" in shown
    assert text_of(ask(model, image, QUESTION)).startswith(text_of(shown).partition(" This model gives")[0])


def test_gradients_are_shown_for_the_answer(model: Model) -> None:
    pytest.importorskip("captum", reason="gradients need captum (extra 'explain')")
    shown = ask(model, prepare(model, content()).image, QUESTION, "gradient")
    assert "What speaks for" in shown and "against a blank image" in shown


def test_answers_are_shown_where_a_picture_cannot_be(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    image = prepare(model, content()).image
    shown = text_of(ask(model, image, QUESTION, "gradient"))
    assert model.answer(from_png(image), QUESTION).best.text in shown and "gradients need captum" in shown


def test_a_strangers_text_is_shown_and_never_run(model: Model) -> None:
    asked = "<script>x</script> {{7}} ${7} `\\"
    shown = ask(model, prepare(model, content()).image, asked)
    assert "<script" not in shown and not set("{}$`\\") & set(shown)
    assert escaped(asked) in shown


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "cannot be read"),
        (b"%PDF-1.4 no image", "cannot be read"),
        (content()[:400], "cannot be read"),
        (b"DICM".rjust(132, b"\0") + b"broken", "cannot be read"),
        (png_that_claims(60_000, 60_000), "cannot be read: .*pixels"),
        (png_that_claims(9_000, 9_000), "cannot be read"),
    ],
    ids=["empty", "no image", "cut off", "DICOM", "huge", "claims more than it has"],
)
def test_a_broken_image_is_one_message(model: Model, file: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        prepare(model, file)
    assert len(str(caught.value).splitlines()) == 1 and "0x" not in str(caught.value)


def test_what_cannot_be_asked_is_said(model: Model, retrieval_run: Path) -> None:
    image = prepare(model, content()).image
    assert "First choose an image" in ask(model, None, QUESTION)
    assert "First write a question" in ask(model, image, "  ")
    ranking = umd.load(retrieval_run)
    for asks, given, text, message in (
        (model, image, "x" * (MOST_CHARACTERS + 1), "too long"),
        (model, "/etc/passwd", QUESTION, "no image of the page"),
        (model, "file:///etc/passwd", QUESTION, "no image of the page"),
        (model, 5, QUESTION, "no image of the page"),
        (model, "data:image/png;base64,é", QUESTION, "no image of the page"),
        (model, "data:image/png;base64,AAAA", QUESTION, "cannot be read"),
        (ranking, image, "a\n" * (MOST_TEXTS + 1), f"up to {MOST_TEXTS} are ranked"),
    ):
        with pytest.raises(UserError, match=message):
            ask(asks, given, text)


def test_places_are_told_by_thirds() -> None:
    assert [third(place, 4, "left", "right") for place in range(4)] == ["left", "", "", "right"]


# Test questions


def records(model: Model, images: list[Path]) -> list[VQARecord]:
    """Three questions an image; the truth of every other one is what the model says."""
    made = []
    for number in range(3 * len(images)):
        image, question = images[number // 3].name, f"Is it number {number}?"
        best = model.answer(images[number // 3], question).best.text
        truth = best if number % 2 else "something else"
        kind = "ORGAN" if number % 3 else "PLANE"
        made.append(VQARecord(str(number), image, question, truth, closed=number % 3 == 2, question_type=kind))
    return made


def test_questions_are_chosen_by_verdict_kind_and_type(model: Model, classifier_run: Path) -> None:
    found = images(classifier_run)
    tests = TestQuestions(model, "phantom", records(model, found), lambda name: found[0].with_name(name))
    assert tests.listed(Chosen("wrong")) == [] and "0 are answered so far" in tests.page(Chosen(), 1)
    tests.answer_all()
    assert tests.listed(Chosen("right")) == [1, 3, 5, 7] and tests.listed(Chosen("wrong")) == [0, 2, 4, 6, 8]
    assert tests.listed(Chosen("all", "closed")) == [2, 5, 8]
    assert tests.listed(Chosen("wrong", "open", "ORGAN")) == [4]
    assert tests.types == ["ORGAN", "PLANE"]
    shown = text_of(tests.page(Chosen(), 1))
    assert "9 of 9 questions, page 1 of 1; 44.4 % of these are answered rightly." in shown
    assert "Is it number 4? ✗ wrong" in shown and "accepted: something else (open, ORGAN)" in shown
    opened = text_of(tests.opened(3))
    assert "✓ right" in opened and "Is it number 3?" in opened and "With a blank image" in opened
    for number in (9, -1, "0", None):
        with pytest.raises(UserError, match="no test question of this number"):
            tests.opened(number)


def test_a_question_without_an_answer_is_neither_right_nor_wrong(model: Model, classifier_run: Path) -> None:
    image = images(classifier_run)[0]
    tests = TestQuestions(model, "x", [VQARecord("0", image.name, QUESTION, "", False, "")], lambda _: image)
    tests.answer_all()
    assert tests.listed(Chosen()) == [0] and tests.listed(Chosen("wrong")) == tests.listed(Chosen("right")) == []
    assert "accepted: none is given (open)" in text_of(tests.page(Chosen(), 1))


def test_pages_and_an_image_that_has_gone(model: Model, classifier_run: Path, tmp_path: Path) -> None:
    image = tmp_path / "gone.jpg"
    image.write_bytes(images(classifier_run)[0].read_bytes())
    record = VQARecord("0", "gone.jpg", QUESTION, "left", False, "POS")
    tests = TestQuestions(model, "x", [record] * (2 * PAGE + 1), lambda _: image)
    counts = [tests.page(Chosen(), page).count("data-number") for page in (-3, 1, 3, 10**6)]
    assert counts == [PAGE, PAGE, 1, 1]
    image.unlink()
    tests.answer_all()
    shown = text_of(tests.page(Chosen(), 1))
    assert "answered up to number 0 alone: image &#x27;gone.jpg&#x27;: no such file" in shown
