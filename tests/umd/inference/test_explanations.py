"""Where an answer comes from: against closed forms, torch's own attention, and features that were planted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import umd
from datamodules.tokenization import build_tokenizer, tokenizer_state
from tests.synthetic import ANSWERS, ENCODER, IMAGE_SIZE, OPTIMIZER, PATCH_SIZE
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.inference import Explanation, Inputs, Model, Reply, Settings, Word
from umd.inference.attention import (
    AttentionMaps,
    attention_weights,
    image_shares,
    mixed,
    parts_of,
    rolled_out,
    shares_of_answer,
)
from umd.inference.explanation import Method, of_words
from umd.inference.gradients import patch_gradients
from umd.inference.picture import above_the_mean, draw, shaded
from umd.inference.preparation import Preparation
from umd.inference.reply import Answer
from umd.inference.stage_network import StageNetwork
from umd.modules import VQAClassifier

QUESTION = "Where is the lesion?"
EMBEDDED = tokenizer_state(build_tokenizer("embedded"), "embedded")
SIDE = IMAGE_SIZE // PATCH_SIZE
METHODS = get_args(Method)


def model_of(config: EncoderConfig, inputs: Literal["both", "image", "text"] = "both") -> Model:
    """An untrained classifier as a model."""
    torch.manual_seed(0)
    stage = VQAClassifier(config, OPTIMIZER, answers=list(ANSWERS), inputs=inputs)
    network = StageNetwork(stage, torch.device("cpu"))
    settings = Settings(
        source="X",
        stage="umd.VQAClassifier",
        task="answering",
        names=network.names,
        link=network.link,
        image_size=config.image_size,
        text_length=16,
        blank=(round(255 * 0.45),) * 3,
    )
    return Model(network, Preparation(EMBEDDED, config.image_size, 16), settings)


TINY = replace(ENCODER, text_options={**ENCODER.text_options, "vocab_size": 4096})


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_a_control_tells_of_what_it_sees_alone(method: Method, image: np.ndarray) -> None:
    blind = model_of(TINY, "text").explain(image, QUESTION, method=method)
    assert blind.patches is None and any(word.weight for word in blind.words)
    looking = model_of(TINY, "image").explain(image, QUESTION, method=method)
    assert [(word.text, word.weight) for word in looking.words] == [(word.text, 0) for word in blind.words]
    assert looking.patches is not None and looking.patches.shape == (SIDE, SIDE) and np.ptp(looking.patches) > 0


# Attention


@pytest.mark.parametrize("kind", ["plain", "bool", "float", "causal"])
def test_weights_are_those_that_torch_attends_with(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 1, 5, 4, generator=generator) for _ in range(3))
    allowed = torch.tensor([True, True, False, True, False])[None, None, None]
    mask = {"bool": allowed, "float": torch.zeros(5, 5).masked_fill(~allowed, -torch.inf)[0]}.get(kind)
    options = {"attn_mask": mask, "is_causal": kind == "causal"}
    expected = functional.scaled_dot_product_attention(query, key, value, **options)  # type: ignore[arg-type]
    found = attention_weights(query, key, value, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(found @ value[:, 0], expected[:, 0])
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 5))


def test_layers_multiply() -> None:
    first, second = (torch.rand(3, 3).softmax(-1) for _ in range(2))
    eye = torch.eye(3)
    torch.testing.assert_close(rolled_out([first, second], 3), (eye + second) @ (eye + first) / 4)
    torch.testing.assert_close(rolled_out([], 3), eye)
    torch.testing.assert_close(mixed(eye, first, 2 * eye), (eye + 2 * first) / 2)


def test_what_is_attended_to_is_what_is_told() -> None:
    """Every text token reads patch 3 alone, and the image's tokens the first word: a half stays, a half goes there."""
    stage = model_of(TINY).network.stage  # type: ignore[attr-defined]
    maps = AttentionMaps(parts_of(stage))
    tokens, patches = 6, SIDE**2
    eye_text, eye_image = torch.eye(tokens)[None], torch.eye(1 + patches)[None]
    to_patch = functional.one_hot(torch.full((1, tokens), 1 + 3), 1 + patches).float()
    to_word = functional.one_hot(torch.zeros(1, 1 + patches, dtype=torch.long), tokens).float()
    maps.of |= {"encoder.vision": [eye_image], "encoder.text": [eye_text]}
    for kind, own, other in (("text", eye_text, to_patch), ("image", eye_image, to_word)):
        maps.of[f"encoder.fusion.{kind}_layers.0.self_attention"] = [own]
        maps.of[f"encoder.fusion.{kind}_layers.0.cross_attention"] = [other]
    shares = shares_of_answer(stage, maps, tokens, real=5)
    # z_T: half the first token, half patch 3. z_I: half the summary token, which has no place, half the first token.
    torch.testing.assert_close(shares.patches, torch.eye(patches)[3] / 4)
    torch.testing.assert_close(shares.tokens, torch.eye(tokens)[0] / 2)


def test_networks_without_attention_give_each_place_itself() -> None:
    vision = model_of(replace(TINY, vision="efficientnet_lite0", vision_options={}, image_size=64)).network
    encoder = vision.stage.encoder.vision  # type: ignore[attr-defined]
    shares = image_shares(encoder, [], 4)
    torch.testing.assert_close(shares[:, 0], torch.zeros(5))
    torch.testing.assert_close(shares[0, 1:], torch.full((4,), 0.25))
    torch.testing.assert_close(shares[1:, 1:], torch.eye(4))


def test_watching_changes_nothing_and_ends(image: np.ndarray) -> None:
    model = model_of(TINY)
    network = model.network
    assert isinstance(network, StageNetwork)
    batch = network.batch(model.preparation.inputs(model.preparation.image(image)[None], [QUESTION]))
    with torch.no_grad():
        before = network.score(batch)
        with AttentionMaps(parts_of(network.stage)) as maps:
            watched = network.score(batch)
        kept = {name: len(found) for name, found in maps.of.items()}
        assert torch.equal(network.score(batch), before) and torch.equal(watched, before)
    assert kept == {name: len(found) for name, found in maps.of.items()} and set(kept.values()) == {1}
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in network.stage.modules())


@pytest.mark.parametrize("kind", ["classifier_run", "generator_run", "classification_run", "retrieval_run"])
def test_attention_is_shared_out_among_patches_and_among_words(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    found = umd.load(folder).explain(next((folder.parents[2] / "data").rglob("*.jpg")), QUESTION)
    assert found.patches is not None and found.patches.shape == (2, 2) and (found.patches >= 0).all()
    assert found.patches.sum() == pytest.approx(1, abs=1e-5)
    assert [word.text for word in found.words] == ["Where", "is", "the", "lesion", "?"]
    assert sum(word.weight for word in found.words) == pytest.approx(1, abs=1e-5)


# Gradients


def test_of_a_linear_score_each_patch_gets_its_own_part() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, pixels = (torch.rand(1, 3, 9, 9, generator=generator) for _ in range(2))
    blank = torch.full_like(pixels, 0.4)

    def score(images: Tensor) -> Tensor:
        return (images * weight).sum((1, 2, 3)) + 5

    found = patch_gradients(score, pixels, blank, grid=2)  # patches of 4 pixels; the last row and column are in none
    parts = (weight * (pixels - blank))[0].sum(0)
    expected = torch.stack([parts[y : y + 4, x : x + 4].sum() for y in (0, 4) for x in (0, 4)]).reshape(2, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_score_that_looks_at_one_corner_is_marked_there() -> None:
    pixels = torch.rand(1, 3, 8, 8)

    def corner(images: Tensor) -> Tensor:
        return torch.tanh(images[:, :, 4:, :4].square().sum((1, 2, 3)))

    found = patch_gradients(corner, pixels, torch.zeros_like(pixels), grid=2)
    assert found[1, 0] == pytest.approx(float(corner(pixels)), abs=0.02)
    found[1, 0] = 0
    assert found.abs().max() == 0


@pytest.mark.parametrize("vision", ["tiny_vit", "efficientnet_lite0"])
def test_gradients_add_up_to_what_the_image_and_the_words_change(vision: str, image: np.ndarray) -> None:
    options = ENCODER.vision_options if vision == "tiny_vit" else {}
    size = IMAGE_SIZE if vision == "tiny_vit" else 64
    config = replace(TINY, vision=vision, vision_options=options, image_size=size, freeze_vision=True)
    model = model_of(config)
    found = model.explain(image, QUESTION, method="gradient")
    number = model.settings.names.index(found.answer)
    pixels = model.preparation.image(image)
    blank = np.moveaxis(model.blank, -1, 0)
    inputs = model.preparation.inputs(np.stack([pixels, blank, pixels]), [QUESTION] * 3)
    hidden = np.where(inputs.word_ids[2] >= 0, model.preparation.tokenizer.mask_token_id, inputs.input_ids[2])
    inputs.input_ids[2] = hidden
    whole, without_image, without_words = model.network.scores(inputs)[:, number]
    assert found.patches is not None
    if vision == "tiny_vit":  # the uint8 mean of its channels is within rounding of the mean itself
        assert found.patches.sum() == pytest.approx(whole - without_image, abs=0.02)
    assert sum(word.weight for word in found.words) == pytest.approx(whole - without_words, abs=0.02)
    assert np.abs(found.patches).max() > 0


def test_written_answers_have_gradients_of_their_own(generator_run: Path) -> None:
    model = umd.load(generator_run)
    path = next((generator_run.parents[2] / "data").rglob("*.jpg"))
    one, other = (model.explain(path, QUESTION, answer=name, method="gradient") for name in ("left", "right"))
    assert one.patches is not None and other.patches is not None and not np.allclose(one.patches, other.patches)
    assert one.reply == other.reply


# Words and pictures


def test_pieces_of_a_word_count_together() -> None:
    preparation = Preparation(EMBEDDED, 32, 16)
    text = "Is xylophonist here?"
    inputs = preparation.inputs(np.zeros((1, 3, 32, 32), np.uint8), [text])
    weights = np.arange(inputs.input_ids.shape[1], dtype=np.float32)
    words = of_words(weights, inputs.word_ids[0], preparation.words(text))
    assert [word.text for word in words] == ["Is", "xylophonist", "here", "?"]
    real = inputs.word_ids[0] >= 0
    assert sum(word.weight for word in words) == weights[real].sum()
    assert words[1].weight == weights[inputs.word_ids[0] == 1].sum() and (inputs.word_ids[0] == 1).sum() > 1


@pytest.mark.parametrize("method", METHODS)
def test_the_picture_is_strongest_where_the_weight_is(method: Method, tmp_path: Path) -> None:
    patches = np.zeros((4, 4), np.float32)
    patches[2, 1] = 1
    reply = Reply("a.jpg", QUESTION, (Answer("left", 0.8, 1.4), Answer("right" * 9, 0.1, -2.2)))
    words = tuple(Word(word, place / 10) for place, word in enumerate("a question that takes two lines ".split() * 5))
    found = Explanation(reply, "left", method, np.full((3, 66, 66), 90, np.uint8), patches, words)
    opacity = shaded(found)[..., 3]
    y, x = divmod(int(opacity.argmax()), 66)
    assert (y // 16, x // 16) == (2, 1) and opacity[:16].max() == 0
    assert opacity[64:].max() == 0  # the remainder fills no patch
    draw(found, tmp_path / "out.png", remark="With a blank image the answer is the same.")
    assert Image.open(tmp_path / "out.png").size == (1170, 910)
    draw(replace(found, patches=None, words=()), tmp_path / "out.png")
    with pytest.raises(UserError, match="cannot write"):
        (tmp_path / "file").touch()
        draw(found, tmp_path / "file" / "out.png")


def test_flat_attention_looks_flat_and_a_long_question_has_room(tmp_path: Path) -> None:
    reply = Reply("a.jpg", QUESTION, (Answer("left", 0.8, 1.4),))
    words = tuple(Word("admitted", 0.1) for _ in range(60))
    patches = np.ones((4, 4), np.float32)
    patches[2, 1] = 1.12
    flat = Explanation(reply, "left", "attention", np.full((3, 64, 64), 90, np.uint8), patches, words)
    assert shaded(flat)[..., 3].max() < 0.05 * 255
    patches = np.full((4, 4), 12 / 15, np.float32)
    patches[2, 1] = 4
    np.testing.assert_allclose(above_the_mean(patches), patches == 4, atol=1e-6)
    assert above_the_mean(np.array([1, 1, 2.5, 0.5, 0], np.float32))[2] == pytest.approx(0.5)
    draw(flat, tmp_path / "long.png")
    draw(replace(flat, words=words[:5]), tmp_path / "short.png")
    long, short = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("long.png", "short.png"))
    assert len(long) > len(short) == 910
    # From the bars down nothing is moved (but for the rounding of edges), and no word lies on them.
    np.testing.assert_allclose(long[-270:].astype(int), short[-270:].astype(int), atol=32)


def test_a_model_of_the_text_alone_has_words_and_no_patches(image: np.ndarray) -> None:
    model = model_of(replace(TINY, vision=None, vision_options={}))
    for method in METHODS:
        found = model.explain(image, QUESTION, method=method)
        assert found.patches is None and len(found.words) == 5


# What cannot be explained


def test_what_cannot_be_explained_is_said(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TINY)
    with pytest.raises(UserError, match="'cat' is none of the 4 that this model can say"):
        model.explain(image, QUESTION, answer="cat")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"pip install 'umd\[explain\]'"):
        model.explain(image, QUESTION, method="gradient")
    model.explain(image, QUESTION)  # the attention needs nothing

    class Bare:
        def scores(self, inputs: Inputs) -> np.ndarray:
            return np.zeros((len(inputs), 4), np.float32)

    with pytest.raises(UserError, match="gives scores alone"):
        Model(Bare(), model.preparation, model.settings).explain(image, QUESTION)
