"""The registry, every encoder in it, the fusion and the pooling."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel

from tests.synthetic import ENCODER, vqa_batch
from umd.encoders import TEXT, VISION, EncoderConfig, Features, MultimodalEncoder, build_text, build_vision
from umd.encoders.attention import Attention
from umd.encoders.clip import CLIPVision
from umd.encoders.fusion import CoAttentionLayer, Fusion
from umd.encoders.interfaces import TextEncoder, VisionEncoder
from umd.encoders.pretrained import interpolate_positions
from umd.encoders.registry import Registry
from umd.files import UserError
from umd.masking import PatchMask, mask_patches

IMAGE_SIZE = 96


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def smallest(registry: Registry[Any], name: str) -> dict[str, int]:
    """The options that make an entry as shallow as it gets."""
    known = inspect.signature(registry.find(name).build).parameters
    return {option: 1 for option in ("blocks", "layers", "depth") if option in known}


@pytest.fixture(scope="module", params=VISION.names)
def vision(request: pytest.FixtureRequest) -> VisionEncoder:
    name = request.param
    return build_vision(name, image_size=IMAGE_SIZE, options=smallest(VISION, name)).eval()


@pytest.fixture(scope="module", params=TEXT.names)
def text(request: pytest.FixtureRequest) -> TextEncoder:
    name = request.param
    return build_text(name, options=smallest(TEXT, name)).eval()


def images(encoder: VisionEncoder, count: int) -> Tensor:
    return encoder.normalize(torch.randint(0, 256, (count, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8))


def half_mask(encoder: VisionEncoder, count: int) -> PatchMask:
    return mask_patches(count, encoder.patches, 0.5, torch.Generator().manual_seed(3))


# The registry


@pytest.mark.parametrize("build", [build_vision, build_text])
def test_an_unknown_name_is_met_with_the_known_ones(build: Any) -> None:  # noqa: ANN401 - either builder
    given = {"image_size": 64} if build is build_vision else {}
    registry, typed, meant = (
        (VISION, "clip_vitb16", "clip_vit_b16") if build is build_vision else (TEXT, "robertabase", "roberta_base")
    )
    with pytest.raises(ValueError, match=f"unknown .* encoder '{typed}'") as caught:
        build(typed, **given)
    assert f"Did you mean '{meant}'?" in str(caught.value)
    assert all(name in str(caught.value) for name in registry.names)


def test_a_name_far_from_all_is_met_without_a_guess() -> None:
    with pytest.raises(ValueError, match="Known: ") as caught:
        build_vision("zzzzzzzz", image_size=64)
    assert "Did you mean" not in str(caught.value)


def test_a_name_is_registered_once() -> None:
    registry: Registry[VisionEncoder] = Registry("vision encoder")

    def build(image_size: int, weights: str | None = None) -> VisionEncoder:
        raise NotImplementedError

    registry.register("mine")(build)
    with pytest.raises(ValueError, match="'mine' is registered twice"):
        registry.register("mine")(build)


def test_an_unknown_option_is_met_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'tiny_bert' has no option 'depth'.*layers"):
        build_text("tiny_bert", options={"depth": 3})
    with pytest.raises(ValueError, match="no option 'weights'"):
        build_text("tiny_bert", options={"weights": "default"})


def test_an_image_below_one_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size"):
        build_vision("tiny_vit", image_size=7)


# Every vision encoder


@torch.no_grad()
def test_vision_shape_and_batch_invariance(vision: VisionEncoder) -> None:
    pixels = images(vision, 3)
    together = vision(pixels)
    assert together.shape == (3, 1 + vision.patches, vision.width)
    assert vision.grid == IMAGE_SIZE // vision.patch_size
    torch.testing.assert_close(torch.cat([vision(one[None]) for one in pixels]), together, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_hidden_patches_leave_no_trace(vision: VisionEncoder) -> None:
    pixels, mask = images(vision, 2), half_mask(vision, 2)
    features = vision(pixels, mask)
    kept = mask.keep.shape[1] if vision.masking == "drop" else vision.patches
    assert features.shape == (2, 1 + kept, vision.width)
    places = mask.masked.view(2, 1, vision.grid, vision.grid)
    hidden = functional.interpolate(places.float(), scale_factor=float(vision.patch_size)).bool()
    disturbed = torch.where(hidden, torch.randn_like(pixels), pixels)
    torch.testing.assert_close(vision(disturbed, mask), features)
    assert not torch.allclose(vision(torch.where(hidden, pixels, 0.0), mask), features, atol=1e-3)


@torch.no_grad()
def test_a_mask_that_hides_nothing_changes_nothing(vision: VisionEncoder) -> None:
    pixels = images(vision, 2)
    nothing = mask_patches(2, vision.patches, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(vision(pixels, nothing), vision(pixels))


def test_all_vision_weights_are_trained(vision: VisionEncoder) -> None:
    """DDP waits for the gradient of every parameter."""
    vision.zero_grad()
    vision(images(vision, 2), half_mask(vision, 2)).square().mean().backward()
    assert [name for name, parameter in vision.named_parameters() if parameter.grad is None] == []
    vision.zero_grad()


def test_a_learned_position_table_is_where_it_says(vision: VisionEncoder) -> None:
    if vision.position_table is not None:
        table = vision.state_dict()[vision.position_table]
        assert table.shape[-2:] == (1 + vision.patches, vision.width)


@torch.no_grad()
def test_dropping_equals_encoding_the_subset_by_hand() -> None:
    encoder = build_vision("tiny_vit", image_size=32, options={"width": 16, "depth": 2, "heads": 2, "patch_size": 8})
    assert isinstance(encoder, CLIPVision)
    encoder.eval()
    embeddings: Any = encoder.model.embeddings
    pixels = torch.randn(2, 3, 32, 32)
    mask = half_mask(encoder, 2)
    weight, table = embeddings.patch_embedding.weight.flatten(1), embeddings.position_embedding.weight
    for row in range(2):
        tokens = [embeddings.class_embedding + table[0]]
        for place in mask.keep[row].tolist():
            y, x = divmod(place, 4)
            patch = pixels[row, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
            tokens.append(weight @ patch.flatten() + table[1 + place])
        hidden = encoder.model.pre_layrnorm(torch.stack(tokens)[None])
        for block in encoder.model.encoder.layers:
            hidden = block(hidden, None)
        wanted = encoder.model.post_layernorm(hidden)[0]
        torch.testing.assert_close(
            encoder(pixels[row : row + 1], PatchMask(mask.keep[[row]], mask.masked[[row]]))[0], wanted
        )


def test_the_remainder_over_whole_patches_is_cropped_right_and_bottom() -> None:
    encoder = build_vision("clip_vit_b16", image_size=37, options={"blocks": 1})
    image = torch.randint(0, 256, (1, 3, 37, 37), dtype=torch.uint8)
    pixels = encoder.normalize(image)
    assert pixels.shape == (1, 3, 32, 32)
    for channel, (mean, std) in enumerate(
        zip((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), strict=True)
    ):
        wanted = (image[0, channel, :32, :32].double() / 255 - mean) / std
        torch.testing.assert_close(pixels[0, channel].double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoder.normalize(image.float() / 255), pixels)
    torch.testing.assert_close(encoder.denormalize(pixels), image[..., :32, :32] / 255)


def test_an_image_too_small_for_the_encoder_is_refused() -> None:
    encoder = build_vision("tiny_vit", image_size=32, options={"depth": 1})
    with pytest.raises(ValueError, match="same image_size"):
        encoder.normalize(torch.zeros(1, 3, 32, 24))


# Position tables


def test_interpolation_keeps_a_table_of_the_right_size() -> None:
    table = torch.randn(10, 4)
    assert torch.equal(interpolate_positions(table, 3), table)


@pytest.mark.parametrize("leading", [(), (1,)])
def test_interpolation_is_bicubic_and_keeps_the_summary_row(leading: tuple[int, ...]) -> None:
    table = torch.randn(*leading, 10, 4)
    resized = interpolate_positions(table, 5)
    assert resized.shape == (*leading, 26, 4)
    rows, new = table.view(10, 4), resized.view(26, 4)
    assert torch.equal(new[0], rows[0])
    for channel in range(4):
        square = rows[1:, channel].view(1, 1, 3, 3)
        wanted = functional.interpolate(square, size=(5, 5), mode="bicubic", align_corners=False)
        torch.testing.assert_close(new[1:, channel].view(5, 5), wanted[0, 0])


def test_a_table_that_is_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="11 rows"):
        interpolate_positions(torch.zeros(11, 4), 4)


# Published weights, from a folder


@torch.no_grad()
def test_clip_weights_from_a_folder_at_another_image_size(tmp_path: Path) -> None:
    source = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=2,
            num_attention_heads=12,
            image_size=96,
            patch_size=32,
        )
    )
    source.save_pretrained(tmp_path)
    given, table = source.state_dict(), "embeddings.position_embedding.weight"
    encoder = build_vision("clip_vit_b32", image_size=128, weights=str(tmp_path), options={"blocks": 1})
    for name, value in encoder.state_dict().items():
        old = given[name.removeprefix("model.")]
        assert torch.equal(value, interpolate_positions(old, 4) if name.endswith(table) else old), name
    with pytest.raises(ValueError, match="not of this encoder"):
        build_vision("clip_vit_b16", image_size=96, weights=str(tmp_path), options={"blocks": 1})


def test_weights_that_are_nowhere_are_named(tmp_path: Path) -> None:
    folder = str(tmp_path / "nothing here")
    for build in (
        lambda: build_vision("clip_vit_b32", image_size=64, weights=folder, options={"blocks": 1}),
        lambda: build_text("bert_base", weights=folder, options={"layers": 1}),
    ):
        with pytest.raises(UserError, match="nothing here"):
            build()


@pytest.mark.parametrize(
    ("layers", "lost", "said"),
    [
        (1, "encoder.layer.0.output.dense.bias", "without encoder.layer.0.output.dense.bias$"),
        (2, None, r"without encoder.layer.1\..*, .* and 13 more$"),
    ],
)
def test_weights_that_a_folder_lacks_are_named_and_never_left_random(
    layers: int, lost: str | None, said: str, tmp_path: Path
) -> None:
    source = BertModel(BertConfig(num_hidden_layers=1), add_pooling_layer=False)
    state = {name: value for name, value in source.state_dict().items() if name != lost}
    source.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(UserError, match=said):
        build_text("bert_base", weights=str(tmp_path), options={"layers": layers})


@torch.no_grad()
def test_the_first_layers_of_bert_from_a_folder(tmp_path: Path) -> None:
    source = BertModel(BertConfig(num_hidden_layers=2), add_pooling_layer=True)
    source.save_pretrained(tmp_path)
    encoder = build_text("bert_base", weights=str(tmp_path), options={"layers": 1})
    given = source.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, given[name.removeprefix("model.")]), name


@pytest.mark.parametrize("name", ["tiny_vit", "tiny_bert"])
def test_a_tiny_encoder_has_no_published_weights(name: str) -> None:
    with pytest.raises(ValueError, match="no published weights"):
        if name == "tiny_vit":
            build_vision(name, image_size=32, weights="default")
        else:
            build_text(name, weights="default")


# Every text encoder


@torch.no_grad()
def test_padding_does_not_change_real_tokens(text: TextEncoder) -> None:
    ids = torch.randint(5, min(text.vocab_size, 1000), (3, 9))
    lengths = [9, 4, 6]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    features = text(ids, mask)
    assert features.shape == (3, 9, text.width)
    for row, length in enumerate(lengths):
        alone = text(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(features[row, :length], alone[0], rtol=1e-4, atol=1e-5)


def test_all_text_weights_are_trained(text: TextEncoder) -> None:
    text.zero_grad()
    ids = torch.randint(5, min(text.vocab_size, 1000), (2, 4))
    text(ids, torch.ones_like(ids, dtype=torch.bool)).square().mean().backward()
    assert [name for name, parameter in text.named_parameters() if parameter.grad is None] == []
    text.zero_grad()


@torch.no_grad()
def test_the_longest_text_is_taken_and_a_longer_one_refused(text: TextEncoder) -> None:
    ids = torch.full((1, text.max_length), 7)
    assert text(ids, torch.ones_like(ids, dtype=torch.bool)).shape[1] == text.max_length
    longer = torch.full((1, text.max_length + 1), 7)
    with pytest.raises(ValueError, match=r"data\.text_length"):
        text(longer, torch.ones_like(longer, dtype=torch.bool))


# Fusion and pooling


def slow_attention(layer: Attention, tokens: Tensor, context: Tensor, mask: list[bool] | None) -> Tensor:
    """One sample, one head and one query at a time: (N, D) and (M, D) -> (N, D)."""
    query, key, value = layer.query(tokens), layer.key(context), layer.value(context)
    size = tokens.shape[1] // layer.heads
    rows = []
    for token in range(len(tokens)):
        parts = []
        for head in range(layer.heads):
            cut = slice(head * size, (head + 1) * size)
            scores = torch.stack([query[token, cut] @ other[cut] / size**0.5 for other in key])
            for place, readable in enumerate(mask or []):
                if not readable:
                    scores[place] = -torch.inf
            weights = scores.exp() / scores.exp().sum()
            parts.append(sum(weight * other[cut] for weight, other in zip(weights, value, strict=True)))
        rows.append(torch.cat([torch.as_tensor(part) for part in parts]))
    return normalized(layer.norm, layer.output(torch.stack(rows)) + tokens)


def normalized(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def slow_layer(layer: CoAttentionLayer, own: Tensor, own_mask: Any, other: Tensor, other_mask: Any) -> Tensor:  # noqa: ANN401
    tokens = slow_attention(layer.self_attention, own, own, own_mask)
    tokens = slow_attention(layer.cross_attention, tokens, other, other_mask)
    hidden = layer.expand(tokens)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return normalized(layer.norm, layer.contract(hidden) + tokens)


@torch.no_grad()
def test_both_stacks_of_a_layer_read_the_same_pair() -> None:
    fusion = Fusion(text_width=6, image_width=5, width=8, layers=2, heads=2, dropout=0.3, layer_norm_eps=1e-12)
    fusion.double().eval()
    for parameter in fusion.parameters():
        parameter.normal_(std=0.5)
    text, image = torch.randn(2, 4, 6).double(), torch.randn(2, 3, 5).double()
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    fused_text, fused_image = fusion(text, mask, image)
    for row in range(2):
        z_text = fusion.text_projection(text[row]) + fusion.modality_embedding.weight[0]
        z_image = fusion.image_projection(image[row]) + fusion.modality_embedding.weight[1]
        real = mask[row].tolist()
        for depth in range(2):
            text_layer, image_layer = fusion.text_layers[depth], fusion.image_layers[depth]
            assert isinstance(text_layer, CoAttentionLayer)
            assert isinstance(image_layer, CoAttentionLayer)
            new_text = slow_layer(text_layer, z_text, real, z_image, None)
            new_image = slow_layer(image_layer, z_image, None, z_text, real)
            z_text, z_image = new_text, new_image
        torch.testing.assert_close(fused_text[row], z_text)
        torch.testing.assert_close(fused_image[row], z_image)


def small_encoder(**changes: Any) -> MultimodalEncoder:  # noqa: ANN401 - fields of EncoderConfig
    return MultimodalEncoder(replace(ENCODER, **changes)).eval()


@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter() -> None:
    encoder, batch = small_encoder(fusion_layers=2), vqa_batch(3)
    pixels, mask = encoder.vision.normalize(batch.image), batch.attention_mask
    features = encoder(pixels, batch.input_ids, mask)
    junk = encoder(pixels, torch.where(mask, batch.input_ids, 11), mask)
    torch.testing.assert_close(junk.image, features.image)
    torch.testing.assert_close(junk.text[mask], features.text[mask])
    for row in range(3):
        real = int(mask[row].sum())
        alone = encoder(pixels[[row]], batch.input_ids[[row], :real], mask[[row], :real])
        torch.testing.assert_close(alone.image[0], features.image[row])
        torch.testing.assert_close(alone.text[0], features.text[row, :real])


@pytest.mark.parametrize("pooling", ["first", "mean", "mean_padded"])
@torch.no_grad()
def test_pooling_reads_the_first_token_or_all_real_ones(pooling: str) -> None:
    encoder = small_encoder(pooling=pooling)
    text, image = torch.randn(2, 4, 24), torch.randn(2, 3, 24)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    pooled = encoder.pool(Features(text, image, mask))
    for row, real in enumerate((4, 2)):
        read = {"first": (1, 1), "mean": (real, 3), "mean_padded": (4, 3)}[pooling]
        read_text = sum(text[row, place] for place in range(read[0])) / read[0]
        read_image = sum(image[row, place] for place in range(read[1])) / read[1]
        torch.testing.assert_close(pooled.text[row], encoder.text_pooler(torch.as_tensor(read_text)).tanh())
        torch.testing.assert_close(pooled.image[row], encoder.image_pooler(torch.as_tensor(read_image)).tanh())
    assert torch.equal(pooled.joint, torch.cat([pooled.text, pooled.image], dim=1))


def test_modalities_are_disjoint_and_leave_the_poolers_out() -> None:
    encoder = small_encoder()
    parts = {name: {id(parameter) for parameter in found} for name, found in encoder.modality_parameters().items()}
    assert parts.keys() == {"vision", "language"}
    assert not parts["vision"] & parts["language"]
    rest = {
        name
        for name, parameter in encoder.named_parameters()
        if id(parameter) not in parts["vision"] | parts["language"]
    }
    poolers = {f"{modality}_pooler.{kind}" for modality in ("text", "image") for kind in ("weight", "bias")}
    assert rest == {"fusion.modality_embedding.weight", *poolers}


@pytest.mark.parametrize(
    ("setting", "value"), [("pooling", "max"), ("fusion_dropout", 1.0), ("fusion_layers", 0), ("fusion_heads", 5)]
)
def test_a_wrong_setting_is_named(setting: str, value: Any) -> None:  # noqa: ANN401 - of any type
    with pytest.raises(ValueError, match=setting.removeprefix("fusion_") + ".*" + str(value)):
        MultimodalEncoder(EncoderConfig(**{**vars(ENCODER), setting: value}))
