"""ResNet (He et al., 2016) and Swin (Liu et al., 2021), on `torchvision`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights, Swin_B_Weights
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.swin_transformer import SwinTransformer

from umd.encoders.interfaces import IMAGENET_MEAN, IMAGENET_STD
from umd.encoders.pixel_masked import PixelMaskedVision
from umd.encoders.pretrained import fill, read_state_dict
from umd.encoders.registry import VISION
from umd.files import UserError

STRIDE = 32


class ResNetVision(PixelMaskedVision):
    """A bottleneck ResNet without its classifier. Weight names follow `torchvision`, under `model.`.

    Args:
        image_size: pixels along the side of the input.
        layers: number of blocks in each of the four stages.
    """

    def __init__(self, image_size: int, *, layers: Sequence[int]) -> None:
        super().__init__(image_size, width=2048, stride=STRIDE, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.model = ResNet(Bottleneck, list(layers))
        self.model.fc = nn.Identity()

    def feature_map(self, pixels: Tensor) -> Tensor:
        """See `PixelMaskedVision.feature_map`."""
        net = self.model
        features = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
        last: Tensor = net.layer4(net.layer3(net.layer2(net.layer1(features))))
        return last


class SwinVision(PixelMaskedVision):
    """A Swin transformer without its classifier. Weight names follow `torchvision`, under `model.`.

    Args:
        image_size: pixels along the side of the input.
        width: channels of the first stage; each of the three others doubles them.
        depths: number of blocks in each stage.
        heads: attention heads in each stage.
        window: side of an attention window, in tokens.
        drop_path: rate of stochastic depth in the last block; it rises linearly from 0.
    """

    def __init__(
        self,
        image_size: int,
        *,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int,
        drop_path: float,
    ) -> None:
        super().__init__(image_size, width=8 * width, stride=STRIDE, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.model = SwinTransformer(
            patch_size=[4, 4],
            embed_dim=width,
            depths=list(depths),
            num_heads=list(heads),
            window_size=[window, window],
            stochastic_depth_prob=drop_path,
        )
        self.model.head = nn.Identity()

    def feature_map(self, pixels: Tensor) -> Tensor:
        """See `PixelMaskedVision.feature_map`."""
        features: Tensor = self.model.norm(self.model.features(pixels))
        return features.permute(0, 3, 1, 2)


def _load(model: nn.Module, weights: str, published: Any, classifier: str, whole: bool) -> None:  # noqa: ANN401 - untyped
    """Fill from torchvision's published weights or a local file of them; `whole`: with all of their blocks."""
    if weights == "default":
        try:
            state: dict[str, Tensor] = published.get_state_dict(progress=False, check_hash=True)
        except OSError as error:
            raise UserError(
                f"the weights could not be fetched from {published.url} ({error}). Without network, download that "
                "file once and give its path as vision_weights, or put it into "
                f"{torch.hub.get_dir()}/checkpoints; null gives random weights"
            ) from error
        source = published.url
    else:
        state, source = read_state_dict(weights), weights
    fill(model, state, source, unused=(classifier,) if whole else ("",))


def _first(depths: Sequence[int], blocks: int | None) -> list[int]:
    if blocks is not None and blocks < 1:
        raise UserError(f"blocks is {blocks}; it must be at least 1")
    return [min(depth, blocks or depth) for depth in depths]


def _resnet(
    image_size: int, weights: str | None, layers: Sequence[int], blocks: int | None, published: object
) -> ResNetVision:
    encoder = ResNetVision(image_size, layers=_first(layers, blocks))
    if weights is not None:
        _load(encoder.model, weights, published, "fc.", blocks is None)
    return encoder


@VISION.register("resnet50")
def resnet50(image_size: int, weights: str | None = None, blocks: int | None = None) -> ResNetVision:
    """ResNet-50 with ImageNet weights, or a `.pth` file of them; `blocks` keeps the first ones of each stage."""
    return _resnet(image_size, weights, (3, 4, 6, 3), blocks, ResNet50_Weights.DEFAULT)


@VISION.register("resnet101")
def resnet101(image_size: int, weights: str | None = None, blocks: int | None = None) -> ResNetVision:
    """ResNet-101 with ImageNet weights, or a `.pth` file of them; `blocks` keeps the first ones of each stage."""
    return _resnet(image_size, weights, (3, 4, 23, 3), blocks, ResNet101_Weights.DEFAULT)


@VISION.register("swin_b")
def swin_b(
    image_size: int, weights: str | None = None, blocks: int | None = None, drop_path: float = 0.0
) -> SwinVision:
    """Swin-B with ImageNet weights, or a `.pth` file of them; `blocks` keeps the first ones of each stage."""
    depths = _first((2, 2, 18, 2), blocks)
    encoder = SwinVision(image_size, width=128, depths=depths, heads=(4, 8, 16, 32), window=7, drop_path=drop_path)
    if weights is not None:
        _load(encoder.model, weights, Swin_B_Weights.DEFAULT, "head.", blocks is None)
    return encoder
