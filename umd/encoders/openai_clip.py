"""CLIP's weights as OpenAI published them, under the names of `transformers`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from umd.files import UserError

_TOP = {
    "conv1.weight": "embeddings.patch_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
BLOCK_NAMES = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def from_openai(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The vision half of an OpenAI CLIP state dict (`visual.conv1.weight`, ...) as a `CLIPVisionModel` names it.

    The text half and the projection to the common space are left out.

    Args:
        state: the published tensors, in any precision.
        source: their file, for messages.

    Returns:
        float32 tensors.

    Raises:
        UserError: it is not a CLIP with a vision transformer.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.startswith("visual.") or name == "visual.proj":
            continue
        inner = name.removeprefix("visual.")
        if inner in _TOP:
            renamed[_TOP[inner]] = value.float()
        elif inner.startswith("transformer.resblocks."):
            number, _, rest = inner.removeprefix("transformer.resblocks.").partition(".")
            layer, _, kind = rest.rpartition(".")
            prefix = f"encoder.layers.{number}."
            if kind in ("in_proj_weight", "in_proj_bias"):
                for letter, part in zip("qkv", value.float().chunk(3), strict=True):
                    renamed[f"{prefix}self_attn.{letter}_proj.{kind.removeprefix('in_proj_')}"] = part.clone()
            elif layer in BLOCK_NAMES:
                renamed[f"{prefix}{BLOCK_NAMES[layer]}.{kind}"] = value.float()
    if _TOP["conv1.weight"] not in renamed:
        raise UserError(
            f"'{source}' is no CLIP with a vision transformer in OpenAI's layout: it has no 'visual.conv1.weight' "
            f"(it holds {', '.join(list(state)[:3])}, ...)"
        )
    return renamed
