"""Every encoder is pre-trained by masking; pixel masking, timm, the LSTM."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.synthetic import ENCODER, OPTIMIZER, RECONSTRUCTION, Batches, quiet_trainer, vqa_batch
from umd.encoders import TEXT, VISION, build_text, build_vision, tokenizer_for
from umd.encoders.lstm import LSTMText
from umd.encoders.pixel_masked import PixelMaskedVision
from umd.encoders.registry import Registry
from umd.files import UserError
from umd.masking import mask_patches
from umd.modules import MRPretrain

TIMM = [f"timm/{name}" for name in ("resnet10t", "convnext_atto", "vit_tiny_patch16_224", "tf_efficientnet_lite0")]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def needs(name: str) -> None:
    if name.startswith(("timm/", "efficientnet")):
        pytest.importorskip("timm")


def smallest(registry: Registry[Any], name: str) -> dict[str, int]:
    known = inspect.signature(registry.find(name).build).parameters
    return {option: 1 for option in ("blocks", "layers", "depth") if option in known}


class Gradients(Callback):
    """Notes the trainable parameters that have no gradient when the optimizer steps."""

    missing: list[str] | None = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.missing = [n for n, p in pl_module.named_parameters() if p.requires_grad and p.grad is None]


def train_one_step(module: LightningModule, folder: Path, image_size: int) -> None:
    gradients, data = Gradients(), Batches([vqa_batch(image_size=image_size)])
    quiet_trainer(folder, gradients, max_steps=1).fit(module, datamodule=data)
    assert gradients.missing == []
    assert all(value.isfinite().all() for value in module.state_dict().values())


# Every entry can be pre-trained; DDP waits for the gradient of every parameter


@pytest.mark.parametrize("name", [*VISION.names, *TIMM])
def test_vision_encoder_is_pretrained_by_masking(name: str, tmp_path: Path) -> None:
    needs(name)
    options = smallest(VISION, name)
    config = replace(ENCODER, vision=name, vision_options=options, image_size=64)
    module = MRPretrain(config, OPTIMIZER, RECONSTRUCTION)
    before = {key: value.clone() for key, value in module.encoder.vision.named_buffers()}
    train_one_step(module.train(), tmp_path, 64)
    # BatchNorm: the student's statistics have moved, the teacher has them, and normalises by them.
    after, kept = dict(module.encoder.vision.named_buffers()), dict(module.teacher.vision.named_buffers())
    for key in after:
        if key.endswith(("running_mean", "running_var")):
            assert not torch.equal(after[key], before[key]), key
            assert torch.equal(after[key], kept[key]), key
    assert not any(part.training for part in module.teacher.modules())


@pytest.mark.parametrize("name", TEXT.names)
def test_text_encoder_is_pretrained_by_masking(name: str, tmp_path: Path) -> None:
    config = replace(ENCODER, text=name, text_options=smallest(TEXT, name))
    train_one_step(MRPretrain(config, OPTIMIZER, RECONSTRUCTION), tmp_path, ENCODER.image_size)


# Pixel masking


@pytest.fixture(scope="module", params=["resnet50", "swin_b", "efficientnet_lite0", *TIMM])
def masked_by_pixel(request: pytest.FixtureRequest) -> PixelMaskedVision:
    needs(request.param)
    encoder = build_vision(request.param, image_size=100, options=smallest(VISION, request.param))
    assert isinstance(encoder, PixelMaskedVision)
    return encoder.eval()


@torch.no_grad()
def test_hidden_patches_are_painted_in_the_mean_colour(masked_by_pixel: PixelMaskedVision) -> None:
    encoder, stride = masked_by_pixel, masked_by_pixel.patch_size
    image = torch.randint(0, 256, (2, 3, 100, 100), dtype=torch.uint8).float() / 255
    mask = mask_patches(2, encoder.patches, 0.5, torch.Generator().manual_seed(1))
    painted = image.clone()
    for row in range(2):
        for place in mask.masked[row].nonzero().flatten().tolist():
            y, x = divmod(place, encoder.grid)
            square = painted[row, :, stride * y : stride * (y + 1), stride * x : stride * (x + 1)]
            square.copy_(encoder.mean[0].expand_as(square))
    features = encoder(encoder.normalize(image), mask)
    torch.testing.assert_close(features, encoder(encoder.normalize(painted)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[:, 0], features[:, 1:].mean(1))


@pytest.mark.parametrize("name", ["resnet101", "swin_b", "efficientnet_lite0", "timm/resnet10t"])
@torch.no_grad()
def test_the_summary_is_what_the_network_pools_itself(name: str) -> None:
    needs(name)
    encoder: Any = build_vision(name, image_size=64, options=smallest(VISION, name)).eval()
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(pixels)[:, 0], encoder.model(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "last", "channels_last"),
    [
        ("resnet50", "layer4", False),
        ("swin_b", "norm", True),
        ("timm/resnet10t", "layer4", False),
        ("timm/swin_tiny_patch4_window7_224", "norm", True),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@torch.no_grad()
def test_patch_tokens_stand_in_reading_order(name: str, last: str, channels_last: bool) -> None:
    needs(name)
    encoder = build_vision(name, image_size=96, options=smallest(VISION, name)).eval()
    caught: list[Tensor] = []
    layer = encoder.get_submodule(f"model.{last}")
    layer.register_forward_hook(lambda _module, _given, features: caught.append(features))
    tokens = encoder(torch.randn(1, 3, 96, 96))
    features = caught[0][0] if channels_last else caught[0][0].permute(1, 2, 0)
    for place in range(9):
        assert torch.equal(tokens[0, 1 + place], features[place // 3, place % 3])


@pytest.mark.parametrize("name", ["resnet50", "swin_b", "efficientnet_lite0", "timm/resnet10t"])
def test_an_image_that_is_one_place_of_the_feature_map_is_refused(name: str) -> None:
    needs(name)
    with pytest.raises(ValueError, match=r"image_size is 63; .* at least 64"):
        build_vision(name, image_size=63, options=smallest(VISION, name))


# timm


@torch.no_grad()
def test_a_coarser_grid_is_the_mean_over_each_of_its_squares() -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    own = build_vision("efficientnet_lite0", image_size=128).eval()
    coarse = build_vision("efficientnet_lite0", image_size=128, options={"grid": 2}).eval()
    coarse.load_state_dict(own.state_dict())
    pixels = torch.randn(2, 3, 128, 128)
    squares = own(pixels)[:, 1:].reshape(2, 2, 2, 2, 2, -1).mean((2, 4)).flatten(1, 2)
    tokens = coarse(pixels)
    assert (coarse.grid, coarse.patch_size, coarse.patches) == (2, 64, 4)
    torch.testing.assert_close(tokens[:, 1:], squares)
    torch.testing.assert_close(tokens[:, 0], squares.mean(1))


@pytest.mark.parametrize("grid", [1, 3, 8])
def test_a_grid_that_the_image_does_not_divide_into_is_refused(grid: int) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=f"4 x 4 patches of an image of 128 pixels: grid {grid} must be 2 to 4"):
        build_vision("efficientnet_lite0", image_size=128, options={"grid": grid})


def test_what_no_patch_token_depends_on_is_frozen() -> None:
    pytest.importorskip("timm")
    encoder = build_vision("timm/convnext_atto", image_size=64)
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    assert frozen == ["model.head.norm.weight", "model.head.norm.bias"]


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet10s", "no model 'resnet10s'.*resnet10t"),
        ("timm/resnet50.no_such_tag", "no_such_tag"),
        ("timm/mixer_s32_224", "64 x 64 pixels; its own size is 224"),
        ("timm/", "unknown vision encoder 'timm/'.*timm/NAME"),
    ],
)
def test_a_timm_model_that_cannot_be_used_is_refused(name: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        build_vision(name, image_size=64)


def test_without_timm_its_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'timm"):
        build_vision("timm/resnet18", image_size=64)


# LSTM


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_lstm_reads_word_by_word(bidirectional: bool) -> None:
    options = {"width": 6, "embedding": 5, "vocab_size": 11, "bidirectional": bidirectional}
    encoder = build_text("lstm", options=options).eval()
    assert isinstance(encoder, LSTMText)
    size = 3 if bidirectional else 6
    ids = torch.randint(1, 11, (2, 4))
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    features = encoder(ids, mask)
    weights = encoder.lstm.state_dict()
    for row, length in enumerate((4, 3)):
        states: dict[str, list[Tensor]] = {}
        for suffix in ("", "_reverse")[: 1 + bidirectional]:
            cell = nn.LSTMCell(5, size)
            cell.load_state_dict({name: weights[f"{name}_l0{suffix}"] for name in cell.state_dict()})
            places = list(range(length))[:: -1 if suffix else 1]
            hidden, memory, seen = torch.zeros(size), torch.zeros(size), {}
            for place in places:
                hidden, memory = cell(encoder.embedding.weight[ids[row, place]], (hidden, memory))
                seen[place] = hidden
            states[suffix] = [seen[place] for place in range(length)]
        for place in range(1, length):
            torch.testing.assert_close(features[row, place], torch.cat([found[place] for found in states.values()]))
        ends = [found[0] if suffix else found[-1] for suffix, found in states.items()]
        torch.testing.assert_close(features[row, 0], torch.cat(ends))


def test_tokenizer_of_a_text_encoder() -> None:
    assert tokenizer_for(None) == "embedded"
    assert tokenizer_for("lstm") == "embedded"
    assert tokenizer_for("lstm", None, {"tokenizer": "some/folder", "width": 8}) == "some/folder"
    assert tokenizer_for("scibert", "default", {"layers": 6}) == "allenai/scibert_scivocab_uncased"
    assert tokenizer_for("scibert", "my/folder") == "my/folder"
