"""The names and shapes of a released UMD or M3AE checkpoint, and what they are called here: pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from umd.encoders import EncoderConfig
from umd.encoders.multimodal import Pooling
from umd.encoders.openai_clip import BLOCK_NAMES
from umd.files import UserError
from umd.modules.objectives import Preset, ReconstructionConfig

TaskHead = Literal["vqa_head", "cls_head", "irtr_head"]

TEACHER = "ema.module."
MATCHING = "itm_head."
POSITIONS = "mim_head.decoder_pos_embed"
_STREAMS = {"language": "text", "vision": "image"}
_FUSION_LAYER = {
    "attention.self.": "self_attention.",
    "attention.output.dense": "self_attention.output",
    "attention.output.LayerNorm": "self_attention.norm",
    "crossattention.self.": "cross_attention.",
    "crossattention.output.dense": "cross_attention.output",
    "crossattention.output.LayerNorm": "cross_attention.norm",
    "intermediate.dense": "expand",
    "output.dense": "contract",
    "output.LayerNorm": "norm",
}
_SPLIT_HEAD = {"0": "hidden.0", "1": "hidden.1", "3": "last"}
_PREFIXES = {
    "vision_encoder.visual.conv1.": "encoder.vision.model.embeddings.patch_embedding.",
    "vision_encoder.visual.class_embedding": "encoder.vision.model.embeddings.class_embedding",
    "vision_encoder.visual.positional_embedding": "encoder.vision.model.embeddings.position_embedding.weight",
    "vision_encoder.visual.ln_pre.": "encoder.vision.model.pre_layrnorm.",
    "vision_encoder.visual.ln_post.": "encoder.vision.model.post_layernorm.",
    "vision_encoder.visual.transformer.resblocks.": "encoder.vision.model.encoder.layers.",
    "language_encoder.embeddings.": "encoder.text.model.embeddings.",
    "language_encoder.encoder.": "encoder.text.model.encoder.",
    "modality_type_embeddings.": "encoder.fusion.modality_embedding.",
    **{f"multi_modal_{old}_proj.": f"encoder.fusion.{new}_projection." for old, new in _STREAMS.items()},
    **{f"multi_modal_{old}_layers.": f"encoder.fusion.{new}_layers." for old, new in _STREAMS.items()},
    **{f"multi_modal_{old}_pooler.dense.": f"encoder.{new}_pooler." for old, new in _STREAMS.items()},
    "mlm_head.transform.dense.": "text_decoder.dense.",
    "mlm_head.transform.LayerNorm.": "text_decoder.norm.",
    "mlm_head.decoder.": "text_decoder.predict.",
    "mlm_head.bias": "text_decoder.predict.bias",
    "mim_head.decoder_embed.": "image_decoder.embed.",
    "mim_head.mask_token": "image_decoder.mask_token",
    "mim_head.decoder.resblocks.": "image_decoder.blocks.layers.",
    "mim_head.decoder_norm.": "image_decoder.norm.",
    "mim_head.decoder_pred.": "image_decoder.predict.",
    "itm_head.fc.": "matching_head.",
    "feal_proj.": "text_feature_projection.",
    **{f"{task}_head.{old}.": f"head.{new}." for task in ("vqa", "cls") for old, new in _SPLIT_HEAD.items()},
    "irtr_head.": "scorer.linear.",
}
_DEAD = {
    "language_encoder.pooler.": "never used by the released code",
    "language_encoder.embeddings.position_ids": "a running number, computed here",
    "vision_encoder.positional_embedding": "left over from CLIP's text half, never used",
    "vision_encoder.token_embedding.": "left over from CLIP's text half, never used",
    "vision_encoder.ln_final.": "left over from CLIP's text half, never used",
    POSITIONS: "fixed sine-cosine positions, computed here",
}


def is_head(name: str) -> bool:
    """Whether a released name belongs to what stands on top of the encoder."""
    heads = ("mlm_head", "mim_head", "itm_head", "feal_proj", *get_args(TaskHead))
    return name.startswith(tuple(f"{head}." for head in heads))


def task_head(state: Mapping[str, Tensor]) -> TaskHead | None:
    """The downstream head that a student has; None for pre-training and calibration.

    Raises:
        UserError: it has several.
    """
    found: list[TaskHead] = [head for head in get_args(TaskHead) if any(name.startswith(f"{head}.") for name in state)]
    if len(found) > 1:
        raise UserError(f"the checkpoint has the heads of several tasks: {', '.join(found)}")
    return found[0] if found else None


def _inner(name: str, known: Mapping[str, str]) -> str:
    for old, new in known.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _rename(name: str) -> str | None:
    """What a released name is called here; None for a name that the released layout does not have."""
    for old, new in _PREFIXES.items():
        if not name.startswith(old):
            continue
        rest = name.removeprefix(old)
        number, _, below = rest.partition(".")
        if old.endswith("resblocks."):
            return f"{new}{number}.{_inner(below, BLOCK_NAMES)}"
        if old.endswith("_layers."):
            return f"{new}{number}.{_inner(below, _FUSION_LAYER)}"
        return new + rest
    return None


def _split_attention(name: str, value: Tensor) -> dict[str, Tensor]:
    """CLIP keeps query, key and value in one tensor, `transformers` in three."""
    block, _, kind = name.rpartition(".attn.in_proj_")
    parts = zip("qkv", value.chunk(3), strict=True)
    return {f"{block}.self_attn.{letter}_proj.{kind}": part.clone() for letter, part in parts}


def rename_weights(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A model's released weights under this project's names.

    Args:
        state: one model's tensors, `ema.module.` already taken off a teacher's.

    Returns:
        The renamed tensors in float32, and the names that have no use here with the reason of each.

    Raises:
        UserError: a name that the released layout does not have.
    """
    renamed: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    unknown = []
    for name, value in state.items():
        reasons = [reason for dead, reason in _DEAD.items() if name.startswith(dead)]
        new = _rename(name)
        if reasons:
            dropped[name] = reasons[0]
        elif new is None:
            unknown.append(name)
        elif ".attn.in_proj_" in new:
            renamed |= _split_attention(new, value.float())
        else:
            renamed[new] = value.float()
    if unknown:
        raise UserError(
            "not in the released layout with a CLIP vision encoder and a RoBERTa text encoder: "
            + ", ".join(unknown[:5])
            + (f", and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        )
    return renamed, dropped


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Numbers of attention heads, which no tensor's shape tells; None means width / 64, as released.

    Attributes:
        vision_heads: of the vision encoder.
        text_heads: of the text encoder.
        fusion_heads: of the fusion.
        decoder_heads: of the image decoder.
    """

    vision_heads: int | None = None
    text_heads: int | None = None
    fusion_heads: int | None = None
    decoder_heads: int | None = None

    def of(self, name: str, width: int) -> int:
        """The heads that were given, or those of a released width; ValueError where neither is possible."""
        given: int | None = getattr(self, name)
        if given is None and width % 64:
            raise UserError(f"the weights are {width} wide, no multiple of 64 as released: give --{name}")
        heads = width // 64 if given is None else given
        if heads < 1 or width % heads:
            raise UserError(f"--{name} is {heads}; {width} is not a multiple of it")
        return heads


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks there are under a prefix."""
    found = (re.match(re.escape(prefix) + r"(\d+)\.", name) for name in state)
    return len({match[1] for match in found if match})


def encoder_settings(state: Mapping[str, Tensor], heads: Heads, pooling: Pooling) -> EncoderConfig:
    """The encoder that renamed weights belong to, its sizes read from their shapes.

    Raises:
        UserError: a tensor that tells a size is missing, or the text encoder is not of RoBERTa's kind.
    """
    size = _shape_reader(state)
    vision, text = "encoder.vision.model.", "encoder.text.model."
    width, _, patch, _ = size(f"{vision}embeddings.patch_embedding.weight")
    rows, _ = size(f"{vision}embeddings.position_embedding.weight")
    blocks = _count(state, f"{vision}encoder.layers.")
    words, text_width = size(f"{text}embeddings.word_embeddings.weight")
    places, _ = size(f"{text}embeddings.position_embeddings.weight")
    if size(f"{text}embeddings.token_type_embeddings.weight")[0] != 1:
        raise UserError("the text encoder has two token types, as BERT has; only RoBERTa's kind is read")
    layers = _count(state, f"{text}encoder.layer.")
    fusion_width, _ = size("encoder.fusion.text_projection.weight")
    vision_heads, text_heads = heads.of("vision_heads", width), heads.of("text_heads", text_width)
    clip = {16: "clip_vit_b16", 32: "clip_vit_b32"}.get(patch) if (width, vision_heads) == (768, 12) else None
    roberta = (text_width, text_heads, words, places) == (768, 12, 50265, 514)
    return EncoderConfig(
        image_size=round((rows - 1) ** 0.5) * patch,
        vision=clip or "tiny_vit",
        vision_options={"blocks": blocks}
        if clip
        else {"width": width, "depth": blocks, "heads": vision_heads, "patch_size": patch},
        text="roberta_base" if roberta else "tiny_roberta",
        text_options={"layers": layers}
        if roberta
        else {
            "width": text_width,
            "layers": layers,
            "heads": text_heads,
            "vocab_size": words,
            "max_position_embeddings": places,
        },
        fusion_width=fusion_width,
        fusion_layers=_count(state, "encoder.fusion.text_layers."),
        fusion_heads=heads.of("fusion_heads", fusion_width),
        pooling=pooling,
    )


def decoder_settings(state: Mapping[str, Tensor], heads: Heads, preset: Preset) -> ReconstructionConfig:
    """The reconstruction settings that renamed weights belong to; rates and ratios are the defaults."""
    width, _ = _shape_reader(state)("image_decoder.embed.weight")
    return ReconstructionConfig(
        preset=preset,
        decoder_width=width,
        decoder_layers=_count(state, "image_decoder.blocks.layers."),
        decoder_heads=heads.of("decoder_heads", width),
    )


def _shape_reader(state: Mapping[str, Tensor]) -> Callable[[str], torch.Size]:
    def size(name: str) -> torch.Size:
        if name not in state:
            raise UserError(f"the checkpoint lacks what becomes '{name}': it is no whole released model")
        return state[name].shape

    return size
