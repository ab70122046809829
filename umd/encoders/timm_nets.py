"""Any image model of `timm` (optional: pip install 'umd[timm]'), by the name `timm/NAME`."""

from __future__ import annotations

import logging
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from umd.encoders.pixel_masked import PixelMaskedVision
from umd.encoders.pretrained import fill, read_state_dict
from umd.encoders.registry import VISION
from umd.files import UserError

logger = logging.getLogger(__name__)


class TimmVision(PixelMaskedVision):
    """A `timm` model without its classifier. Weight names follow `timm`, under `model.`.

    Summary tokens of the model's own are left out. Parameters on which no patch token depends (such as a norm
    that timm applies after pooling) are frozen.

    Args:
        name: its name in `timm`, for messages.
        model: the network.
        image_size: pixels along the side of the input.
        grid: average its feature map into so many patches along a side, fewer than its own (overlapping where its own
            number is no multiple); None: its own. What comes behind costs less.

    Raises:
        UserError: the model takes no images of this size, or has no square feature map; or the image does not divide
            into `grid` patches of whole pixels, or the model has fewer of its own.
    """

    def __init__(
        self,
        name: str,
        model: Any,  # noqa: ANN401 - any network of timm
        image_size: int,
        grid: int | None = None,
    ) -> None:
        settings = model.pretrained_cfg
        stride = model.feature_info[-1]["reduction"]
        self.own_grid = image_size // stride
        side = self.own_grid * stride
        if grid is not None and (not 2 <= grid <= self.own_grid or side % grid):
            raise UserError(
                f"'{name}' has {self.own_grid} x {self.own_grid} patches of an image of {image_size} pixels: "
                f"grid {grid} must be 2 to {self.own_grid} and divide {side}"
            )
        super().__init__(
            image_size,
            width=model.num_features,
            stride=stride if grid is None else side // grid,
            mean=settings["mean"],
            std=settings["std"],
        )
        self.model = model
        if hasattr(model, "set_input_size"):
            model.set_input_size(img_size=(side, side))
        model.eval()
        try:
            with torch.enable_grad():
                features = self.feature_map(torch.zeros(1, 3, side, side))
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f"timm/{name} takes no images of {side} x {side} pixels; its own size is "
                f"{settings['input_size'][-1]}. It says: {error}"
            ) from error
        if features.shape[1:] != (self.width, self.grid, self.grid):
            raise UserError(
                f"timm/{name} yields features of shape {tuple(features.shape[1:])} where a square grid of "
                f"{self.width} channels, {self.grid} x {self.grid}, is needed"
            )
        model.train()
        self._freeze_all_but(_reached_from(features))
        if self.frozen:
            logger.info("timm/%s: frozen, since no patch token depends on it: %s", name, ", ".join(self.frozen))

    def _freeze_all_but(self, used: set[int]) -> None:
        unused = [(name, value) for name, value in self.model.named_parameters() if id(value) not in used]
        for _, value in unused:
            value.requires_grad_(False)
        self.frozen = tuple(name for name, _ in unused)

    @property
    def position_table(self) -> str | None:
        """Name of the learned position table in the state dict, where it is one summary token and the grid."""
        table = getattr(self.model, "pos_embed", None)
        fits = isinstance(table, nn.Parameter) and table.shape[-2:] == (1 + self.patches, self.width)
        return "model.pos_embed" if fits else None

    def feature_map(self, pixels: Tensor) -> Tensor:
        """See `PixelMaskedVision.feature_map`."""
        features: Tensor = self.model.forward_features(pixels)
        if features.ndim == 3:
            features = features[:, getattr(self.model, "num_prefix_tokens", 0) :]
            features = features.transpose(1, 2).reshape(features.shape[0], -1, self.own_grid, self.own_grid)
        elif getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        return features if self.grid == self.own_grid else adaptive_avg_pool2d(features, self.grid)


def _reached_from(output: Tensor) -> set[int]:
    """Identities of the parameters that a tensor was computed from, read off its graph."""
    seen: set[Any] = set()
    reached: set[int] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        waiting += [parent for parent, _ in node.next_functions]
    return reached


def create(name: str, *, classes: int = 0, published: bool = False, drop_path: float = 0.0) -> Any:  # noqa: ANN401
    """A `timm` network at its own image size.

    Args:
        name: its name, with or without a tag.
        classes: of its classifier; 0: none.
        published: fill it with its weights from the hub.
        drop_path: rate of stochastic depth.

    Raises:
        UserError: timm is not installed; or timm has no model of this name, or not with this tag; or the
            published weights are out of reach.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(f"'{name}' is a model of timm, which is not installed: pip install 'timm>=1.0'") from error
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        nearest = get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Near it: {', '.join(nearest)}." if nearest else ""
        raise UserError(f"timm {timm.__version__} has no model '{architecture}'.{hint}")
    # Not every model knows stochastic depth, so it is named only where it is wanted.
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        return timm.create_model(name, pretrained=published, num_classes=classes, **options)
    except TypeError as error:
        raise UserError(f"timm/{name} cannot be built with {options}: {error}") from error
    except (OSError, RuntimeError) as error:
        if not published:
            raise UserError(f"timm/{name} cannot be built: {error}") from error
        raise UserError(
            f"no published weights could be fetched for timm/{name} ({str(error).splitlines()[0]}). Without network, "
            f"download model.safetensors from huggingface.co/timm/{name} once and give its path as vision_weights; "
            "null gives random weights"
        ) from error


@VISION.register("timm/")
def timm_model(
    name: str, image_size: int, weights: str | None = None, drop_path: float = 0.0, grid: int | None = None
) -> TimmVision:
    """A model of timm; weights "default" are timm's own, a path is a file of them (.safetensors, .pth or .bin).

    `grid`: see `TimmVision`.
    """
    model = create(name, published=weights == "default", drop_path=drop_path)
    if weights not in (None, "default"):
        classifiers = model.pretrained_cfg.get("classifier") or ()
        named = [classifiers] if isinstance(classifiers, str) else classifiers
        heads = tuple({classifier.split(".")[0] + "." for classifier in named})
        fill(model, read_state_dict(str(weights)), str(weights), unused=heads)
    return TimmVision(name, model, image_size, grid)
