"""CLIP's vision transformers (Radford et al., 2021), on `transformers`; the tiny default is one of them too."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from umd.encoders.interfaces import VisionEncoder
from umd.encoders.openai_clip import from_openai
from umd.encoders.pretrained import fill, interpolate_positions, load_transformers_weights, read_state_dict
from umd.encoders.registry import VISION
from umd.files import UserError
from umd.masking import PatchMask

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class CLIPVision(VisionEncoder):
    """A CLIP vision transformer whose masked patches are dropped before its first block.

    The last LayerNorm is applied to all tokens. Weight names follow `transformers`, under `model.`.

    Args:
        image_size: pixels along the side of the input; the remainder over whole patches is cropped.
        width: size W of a token.
        depth: number of blocks.
        heads: attention heads of a block.
        patch_size: pixels along a patch's side.
        mean: channel means of the normalisation.
        std: channel standard deviations of the normalisation.
        layer_norm_eps: epsilon of all LayerNorms.
    """

    def __init__(
        self,
        image_size: int,
        *,
        width: int,
        depth: int,
        heads: int,
        patch_size: int,
        mean: tuple[float, float, float] = CLIP_MEAN,
        std: tuple[float, float, float] = CLIP_STD,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        grid = image_size // patch_size
        super().__init__(width=width, patch_size=patch_size, grid=grid, masking="drop", mean=mean, std=std)
        self.model = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                image_size=grid * patch_size,
                patch_size=patch_size,
                layer_norm_eps=layer_norm_eps,
            )
        )

    @property
    def position_table(self) -> str:
        """Name of the learned position table in the state dict."""
        return "model.embeddings.position_embedding.weight"

    def forward(self, pixels: Tensor, mask: PatchMask | None = None) -> Tensor:
        """See `VisionEncoder.forward`."""
        tokens: Tensor = self.model.embeddings(pixels)
        if mask is not None:
            tokens = mask.drop(tokens)
        tokens = self.model.pre_layrnorm(tokens)
        tokens = self.model.encoder(inputs_embeds=tokens).last_hidden_state
        normed: Tensor = self.model.post_layernorm(tokens)
        return normed


def _published(
    name: str,
    image_size: int,
    weights: str | None,
    *,
    width: int,
    depth: int,
    patch_size: int,
    blocks: int | None,
) -> CLIPVision:
    encoder = CLIPVision(image_size, width=width, depth=blocks or depth, heads=width // 64, patch_size=patch_size)
    if weights is not None and (Path(weights).is_file() or weights.endswith((".pt", ".pth"))):
        _fill_from_openai(encoder, weights, whole=blocks is None)
    elif weights is not None:
        load_transformers_weights(
            encoder.model,
            name if weights == "default" else weights,
            grid=encoder.grid,
            position_table=encoder.position_table.removeprefix("model."),
        )
    return encoder


def _fill_from_openai(encoder: CLIPVision, path: str, whole: bool) -> None:
    state = from_openai(read_state_dict(path), path)
    table = encoder.position_table.removeprefix("model.")
    if table in state:
        state[table] = interpolate_positions(state[table], encoder.grid)
    # With fewer blocks than published, the ones behind are left out on purpose.
    fill(encoder.model, state, path, unused=() if whole else ("encoder.layers.",))


@VISION.register("clip_vit_b16")
def clip_vit_b16(image_size: int, weights: str | None = None, blocks: int | None = None) -> CLIPVision:
    """CLIP ViT-B/16; `blocks` keeps the first ones only (the released UMD code keeps 11 of 12).

    As for all CLIP entries, `weights` is "default", a folder as `transformers` saves it, or a `.pt` file with the
    plain state dict of OpenAI's own model (`visual.conv1.weight`, ...).
    """
    return _published(
        "openai/clip-vit-base-patch16", image_size, weights, width=768, depth=12, patch_size=16, blocks=blocks
    )


@VISION.register("clip_vit_b32")
def clip_vit_b32(image_size: int, weights: str | None = None, blocks: int | None = None) -> CLIPVision:
    """CLIP ViT-B/32; `blocks` keeps the first ones only."""
    return _published(
        "openai/clip-vit-base-patch32", image_size, weights, width=768, depth=12, patch_size=32, blocks=blocks
    )


@VISION.register("clip_vit_l14")
def clip_vit_l14(image_size: int, weights: str | None = None, blocks: int | None = None) -> CLIPVision:
    """CLIP ViT-L/14; `blocks` keeps the first ones only."""
    return _published(
        "openai/clip-vit-large-patch14", image_size, weights, width=1024, depth=24, patch_size=14, blocks=blocks
    )


@VISION.register("tiny_vit")
def tiny_vit(
    image_size: int,
    weights: str | None = None,
    width: int = 64,
    depth: int = 3,
    heads: int = 4,
    patch_size: int = 16,
) -> CLIPVision:
    """A small transformer of CLIP's kind for demonstrations and tests; it has no published weights."""
    if weights is not None:
        raise UserError(f"tiny_vit has no published weights: set vision_weights to null, not '{weights}'")
    # CLIP's scale on average, the same for all channels: radiographs are grey and stay so when they are rebuilt.
    mean, std = (0.45, 0.45, 0.45), (0.27, 0.27, 0.27)
    encoder = CLIPVision(image_size, width=width, depth=depth, heads=heads, patch_size=patch_size, mean=mean, std=std)
    # Trained from scratch in minutes, it learns where things are far sooner if places differ from the start.
    nn.init.normal_(encoder.model.embeddings.position_embedding.weight, std=0.5)
    return encoder
