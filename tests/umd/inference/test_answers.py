"""What a loaded model says is what its stage says in a test, from whatever form the image comes in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import LightningDataModule
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

import umd
from datamodules.tokenization import build_tokenizer, tokenizer_state
from tests.synthetic import vqa_batch
from umd.checkpoints import SETTINGS_KEY
from umd.commands.train import run
from umd.encoders import EncoderConfig, MultimodalEncoder
from umd.files import UserError
from umd.inference import Inputs, Model, Reply, Settings
from umd.inference import model as asked
from umd.inference.explanation import Method
from umd.inference.network import probabilities
from umd.inference.preparation import Preparation
from umd.inference.reply import ranked
from umd.modules import Retrieval
from umd.modules.base import Stage

QUESTION = "Where is the lesion?"
EMBEDDED = tokenizer_state(build_tokenizer("embedded"), "embedded")


@pytest.fixture(autouse=True)
def no_data_module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data module is made where a model is loaded and asked."""
    if "predict" not in request.node.name:
        runs = [name for name in request.fixturenames if name.endswith("_run")]
        for name in runs:
            request.getfixturevalue(name)

        def refuse(self: LightningDataModule, *args: object, **kwargs: object) -> None:
            raise AssertionError("a data module was made")

        monkeypatch.setattr(LightningDataModule, "__init__", refuse)


@pytest.fixture(scope="module")
def classifier(classifier_run: Path) -> Model:
    return umd.load(classifier_run)


def data_of(run_folder: Path) -> Path:
    return run_folder.parents[2] / "data"


def some_images(run_folder: Path) -> list[Path]:
    return sorted(data_of(run_folder).rglob("*.jpg"))[:3]


def close(one: Reply, other: Reply) -> bool:
    """The same answers in the same order, with probabilities that differ by no more than rounding."""
    return [answer.text for answer in one.answers] == [answer.text for answer in other.answers] and np.allclose(
        [answer.probability for answer in one.answers], [answer.probability for answer in other.answers], atol=1e-5
    )


@pytest.mark.parametrize("kind", ["classifier_run", "generator_run"])
def test_answers_are_those_of_predict(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(kind)
    checkpoint = folder / "checkpoints" / "best.ckpt"
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    run(["predict", f"--ckpt_path={checkpoint}", f"--runs={tmp_path}", "--trainer.precision=32-true", *quiet])
    (file,) = tmp_path.rglob("predictions.csv")
    table = pd.read_csv(file, keep_default_na=False, dtype={"answer": str})
    images = [str(data_of(folder) / name) for name in table["image"]]
    replies = umd.load(checkpoint).answer(images, list(table["question"]), top=1, batch_size=5)
    assert [reply.best.text for reply in replies] == list(table["answer"])
    # The file has four places.
    found = [reply.best.probability for reply in replies]
    np.testing.assert_allclose(found, table["confidence"], atol=0.5e-4 + 1e-5, rtol=0)


def test_an_answer_does_not_depend_on_what_else_is_asked(classifier: Model, classifier_run: Path) -> None:
    images, questions = some_images(classifier_run), [QUESTION, "Is there a lesion?", "What is shown in this image?"]
    together = classifier.answer(images, questions, top=4)
    for image, question, reply in zip(images, questions, together, strict=True):
        assert (reply.image, reply.text, len(reply.answers)) == (str(image), question, 4)
        assert close(classifier.answer(image, question, top=4), reply)
    for one_each in (classifier.answer(images[0], questions), classifier.answer(images, questions[0])):
        assert len(one_each) == 3 and close(one_each[0], classifier.answer(images[0], questions[0]))


@pytest.mark.parametrize("kind", ["classifier_run", "generator_run"])
def test_questions_about_one_image_have_it_decoded_and_encoded_once(
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    classifier_run: Path,
    generator_run: Path,
) -> None:
    folder = {"classifier_run": classifier_run, "generator_run": generator_run}[kind]
    model, (one, other, _) = umd.load(folder), some_images(folder)
    images = [one, other, one, one]
    questions = [QUESTION, QUESTION, "Is there a lesion?", "What is shown?"]
    alone = [model.answer(image, question) for image, question in zip(images, questions, strict=True)]
    decoded: list[object] = []
    encoded: list[int] = []
    image_of = model.preparation.image

    def counted(source: Path) -> np.ndarray:
        decoded.append(source)
        return image_of(source)

    monkeypatch.setattr(model.preparation, "image", counted)
    vision = model.network.stage.encoder.vision  # type: ignore[attr-defined] # the network of a checkpoint has one
    vision.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    replies = model.answer(images, questions)
    assert decoded == [one, other] and encoded == [2]
    assert all(map(close, replies, alone))


def test_the_same_image_in_any_form_gets_the_same_answer(classifier: Model, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).permutation(np.arange(80 * 60) % 256).reshape(80, 60).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns, data.SamplesPerPixel = 80, 60, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelData = 7, grey.tobytes()
    data.save_as(tmp_path / "grey.dcm", enforce_file_format=True)
    turned = Image.fromarray(np.rot90(grey))  # a quarter turn, which EXIF's orientation 6 takes back
    turned.getexif()[274] = 6
    forms: list[Any] = [
        str(tmp_path / "grey.png"),
        tmp_path / "grey.dcm",
        Image.fromarray(grey),
        turned,
        grey,
        np.repeat(grey[..., None], 3, axis=2),
        grey / 255,
        grey.astype(np.uint16) * 257,
    ]
    replies = [classifier.answer(form, QUESTION) for form in forms]
    assert {reply.answers for reply in replies} == {replies[0].answers}


def test_classes_and_ranks_are_the_stages_own(classification_run: Path, retrieval_run: Path) -> None:
    model = umd.load(classification_run)
    image = some_images(classification_run)[0]
    reply = model.classify(image, "a scan", top=99)
    assert {answer.text for answer in reply.answers} == set(model.settings.names)
    assert sum(answer.probability for answer in reply.answers) == pytest.approx(1, abs=1e-5)
    assert close(model.classify([image, image], "a scan", top=99)[1], reply)
    assert model.classify(image).text == ""

    model = umd.load(retrieval_run)
    image = some_images(retrieval_run)[0]
    texts = ["a head scan", "a chest radiograph with a lesion in the left lung", "nothing at all"]
    reply = model.rank(image, texts, batch_size=2)
    assert [answer.score for answer in reply.answers] == sorted((one.score for one in reply.answers), reverse=True)
    assert sum(answer.probability for answer in reply.answers) == pytest.approx(1, abs=1e-5)
    stage = model.network.stage  # type: ignore[attr-defined] # the network of a checkpoint has one
    assert isinstance(stage, Retrieval)
    inputs = model.preparation.inputs(model.preparation.image(image)[None].repeat(3, 0), texts)
    with torch.no_grad():  # each pair by itself, through the encoder's own forward
        pairs = stage.encoder(
            stage.encoder.vision.normalize(torch.from_numpy(inputs.image)),
            torch.from_numpy(inputs.input_ids),
            torch.from_numpy(inputs.attention_mask),
        )
        scores = stage.scorer(stage.encoder.pool(pairs))
    by_text = {answer.text: answer.score for answer in reply.answers}
    np.testing.assert_allclose([by_text[text] for text in texts], scores, atol=1e-5)


def test_vectors_of_one_space_are_of_unit_length_and_those_of_others_are_the_encoders(
    contrastive_run: Path, classifier: Model, classifier_run: Path
) -> None:
    images = some_images(contrastive_run)
    model = umd.load(contrastive_run)
    found = model.embed(images=images, texts=["a head", "a chest"], batch_size=2)
    assert found.comparable and found.images is not None and found.texts is not None
    for vectors in (found.images, found.texts):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (found.images @ found.texts.T).shape == (3, 2)
    with pytest.raises(UserError, match="no answers yet"):
        model.answer(images[0], QUESTION)

    alone = classifier.embed(images=some_images(classifier_run)[0])
    assert not alone.comparable and alone.texts is None and alone.images is not None
    width = classifier.network.stage.encoder.vision.width  # type: ignore[attr-defined]
    assert alone.images.shape == (1, width)


def test_what_an_answer_owes_to_the_image(classifier: Model, classifier_run: Path) -> None:
    first, second, _ = some_images(classifier_run)
    check = classifier.check_image(first, QUESTION, other=second)
    assert close(check.reply, classifier.answer(first, QUESTION))
    assert check.other is not None and close(check.other, classifier.answer(second, QUESTION))
    grey = Image.new("RGB", (50, 50), classifier.settings.blank)
    assert close(check.blank, classifier.answer(grey, QUESTION))
    blind = classifier.check_image(grey, QUESTION)
    assert blind.other is None and "a blank image the answer is the same" in str(blind)


def test_several_threads_get_their_own_answers(classifier: Model, classifier_run: Path) -> None:
    asked = [(image, question) for image in some_images(classifier_run) for question in (QUESTION, "Is it a head?")] * 4
    alone = [classifier.answer(*one) for one in asked]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: classifier.answer(*one), asked))
    assert all(close(*two) for two in zip(together, alone, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("kind", ["classifier_run", "generator_run", "retrieval_run"])
def test_a_gpu_answers_and_explains_as_the_processor_does(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    image = some_images(folder)[0]
    here, there = umd.load(folder), umd.load(folder, device="cuda")
    for method in get_args(Method):
        one, other = (model.explain(image, QUESTION, method=method) for model in (here, there))
        assert one.patches is not None and other.patches is not None
        np.testing.assert_allclose(one.patches, other.patches, atol=1e-3)
        mine, theirs = ([answer.score for answer in found.reply.answers] for found in (one, other))
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


# Checkpoints


def test_old_names_load_and_foreign_classes_do_not(classifier_run: Path, tmp_path: Path) -> None:
    content = torch.load(classifier_run / "checkpoints" / "best.ckpt", weights_only=True)
    image = some_images(classifier_run)[0]
    expected = umd.load(classifier_run).answer(image, QUESTION)
    content[SETTINGS_KEY]["model"]["class_path"] = "umd.modules.vqa.VQAClassifier"  # as it was written once
    torch.save(content, tmp_path / "old.ckpt")
    assert umd.load(tmp_path / "old.ckpt").answer(image, QUESTION).answers == expected.answers
    for name in ("os.system", "umd.EncoderConfig", "umd.load", "own.Stage"):
        content[SETTINGS_KEY]["model"]["class_path"] = name
        torch.save(content, tmp_path / "foreign.ckpt")
        with pytest.raises(UserError, match=f"{name}.*no stage of umd"):
            umd.load(tmp_path / "foreign.ckpt")


def test_what_is_no_model_is_said_to_be_none(classifier_run: Path, tmp_path: Path) -> None:
    content = torch.load(classifier_run / "checkpoints" / "best.ckpt", weights_only=True)
    (tmp_path / "text.ckpt").write_text("no")
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    torch.save({**content, "PhantomVQA": {}}, tmp_path / "mute.ckpt")
    state = {name: value for name, value in content["state_dict"].items() if "head.last" not in name}
    torch.save({**content, "state_dict": state}, tmp_path / "headless.ckpt")
    for name, message in {
        "none.ckpt": "there is no checkpoint",
        "text.ckpt": "not a complete checkpoint",
        "bare.ckpt": "does not say how it was made",
        "mute.ckpt": "holds no tokenizer",
        "headless.ckpt": "do not fit .*head.last",
        "": "no folder of a run",
    }.items():
        with pytest.raises(UserError, match=message):
            umd.load(tmp_path / name)
    with pytest.raises(UserError, match=r"device .cuda:99. cannot be used.*.cpu. always can"):
        umd.load(classifier_run, device="cuda:99")


# What cannot be asked


def test_mistakes_are_told_in_the_users_words(classifier: Model, classifier_run: Path, tmp_path: Path) -> None:
    image = some_images(classifier_run)[0]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(image.read_bytes()[:200])
    asked: list[tuple[Any, Any, str]] = [
        (tmp_path / "none.jpg", QUESTION, "image '.*none.jpg': no such file"),
        (broken, QUESTION, "image '.*broken.jpg'"),
        (image, " ", "a question must have words: it is empty"),
        (image, [QUESTION, ""], "number 2 of 2 is empty"),
        ([image, image], [QUESTION] * 3, "2 images and 3 texts"),
        ([], QUESTION, "at least one of each"),
        (np.zeros((4, 4, 2)), QUESTION, r"shape \(4, 4, 2\) is no image"),
        (np.full((4, 4), np.nan), QUESTION, r"must lie in 0..1"),
        (np.zeros((4, 4), np.int64), QUESTION, "an array of int64 is no image"),
        (Image.new("L", (9460, 9460)), QUESTION, "9460 x 9460 pixels"),
    ]
    for given, question, message in asked:
        with pytest.raises(UserError, match=message):
            classifier.answer(given, question)
    with pytest.raises(TypeError, match="not int"):
        classifier.answer(3, QUESTION)  # type: ignore[call-overload]
    for ask in (classifier.rank, classifier.classify):
        with pytest.raises(UserError, match=r"umd\.VQAClassifier: it answers questions"):
            ask(image, ["a"])


def test_a_question_that_is_too_long_is_cut_with_a_word(
    classifier: Model, classifier_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(asked.logger, "warning", lambda message, *values: said.append(message % values))
    image = some_images(classifier_run)[0]
    long = "is " * 40
    reply = classifier.answer(image, long + "there a lesion?")
    assert reply.cut and said[0].startswith("only the first 32 tokens are read of: is is")
    same = classifier.answer(image, long + "nothing?")
    assert [answer.text for answer in same.answers] == [answer.text for answer in reply.answers]
    assert same.best.probability == pytest.approx(reply.best.probability, abs=1e-6)
    assert not classifier.answer(image, QUESTION).cut


# The parts


def test_scores_become_probabilities() -> None:
    scores = np.array([[0.0, np.log(3), -np.inf, -1000.0, 1000.0]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(scores, "sigmoid"), [[0.5, 0.75, 0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(probabilities(scores[:, :3], "softmax"), [[0.25, 0.75, 0]], atol=1e-6)
    np.testing.assert_allclose(probabilities(-scores[:, :2], "exp"), [[1, 1 / 3]], atol=1e-6)


def test_of_equal_scores_the_first_name_goes_first_and_what_was_not_considered_is_left_out() -> None:
    scores = np.array([1, 2, -np.inf, 2], dtype=np.float32)
    assert [answer.text for answer in ranked(scores, "abcd", "exp", 9)] == ["b", "d", "a"]
    assert [answer.text for answer in ranked(scores, "abcd", "exp", 1)] == ["b"]


def test_a_frozen_encoder_remembers_no_more_images_than_it_may() -> None:
    encoder = MultimodalEncoder(
        EncoderConfig(image_size=32, vision="tiny_vit", text="tiny_bert", freeze_vision=True, fusion_width=24)
    )
    encoder.remember(2)
    batch = vqa_batch(4)
    encoder.eval()(encoder.vision.normalize(batch.image), batch.input_ids, batch.attention_mask)
    assert len(encoder._memory) == 2


def test_a_model_needs_no_more_than_scores() -> None:
    """What others may build on: anything with `scores` answers, and says so where it has no vectors."""

    class Constant:
        def scores(self, inputs: Inputs) -> np.ndarray:
            return np.tile(np.array([[0.1, 0.9]], dtype=np.float32), (len(inputs), 1))

    reference = Settings(
        source="X", stage="umd.VQAClassifier", task="answering", names=("no", "yes"), link="exp", image_size=32,
        text_length=8, blank=(1, 2, 3),
    )  # fmt: skip
    model = Model(Constant(), Preparation(EMBEDDED, 32, 8), reference)
    assert model.answer(np.zeros((40, 40)), "is it?").best.text == "yes"
    with pytest.raises(UserError, match="'X' gives scores alone"):
        model.embed(texts="a")


def test_stages_load_in_evaluation_mode_and_without_gradients(classifier: Model) -> None:
    stage = classifier.network.stage  # type: ignore[attr-defined]
    assert isinstance(stage, Stage) and not stage.training
    assert not any(parameter.requires_grad for parameter in stage.parameters())
