"""A state dict with the names and shapes of the released UMD code, at any size, from its documented layout."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from umd.heads.image_decoder import sincos_positions

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a released model; defaults are those of a real run at 288 pixels."""

    hidden: int = 768
    width: int = 768
    patch: int = 16
    grid: int = 18
    blocks: int = 11
    text_layers: int = 12
    fusion_layers: int = 6
    words: int = 50265
    places: int = 514
    decoder: int = 384
    decoder_blocks: int = 4
    clip_width: int = 512
    clip_words: int = 49408
    clip_places: int = 77


TINY = Sizes(
    hidden=48,
    width=48,
    patch=8,
    grid=4,
    blocks=2,
    text_layers=2,
    fusion_layers=2,
    words=200,
    places=20,
    decoder=24,
    decoder_blocks=2,
    clip_width=32,
    clip_words=100,
    clip_places=16,
)


def released_shapes(sizes: Sizes, heads: frozenset[str], answers: int = 0) -> dict[str, Shape]:
    """Names and shapes of a student.

    Args:
        sizes: of the model.
        heads: which of mlm, mim, itm, feal, vqa, cls and irtr it has.
        answers: number of answers of the vqa head, or of classes of the cls head.
    """
    h, w, d = sizes.hidden, sizes.width, sizes.decoder
    shapes: dict[str, Shape] = {}

    def linear(name: str, out: int, into: int) -> None:
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name: str, size: int) -> None:
        shapes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    def clip_block(name: str, size: int) -> None:
        shapes.update({f"{name}.attn.in_proj_weight": (3 * size, size), f"{name}.attn.in_proj_bias": (3 * size,)})
        linear(f"{name}.attn.out_proj", size, size)
        norm(f"{name}.ln_1", size)
        norm(f"{name}.ln_2", size)
        linear(f"{name}.mlp.c_fc", 4 * size, size)
        linear(f"{name}.mlp.c_proj", size, 4 * size)

    def bert_layer(name: str, attentions: tuple[str, ...]) -> None:
        for attention in attentions:
            for part in ("query", "key", "value"):
                linear(f"{name}.{attention}.self.{part}", h, h)
            linear(f"{name}.{attention}.output.dense", h, h)
            norm(f"{name}.{attention}.output.LayerNorm", h)
        linear(f"{name}.intermediate.dense", 4 * h, h)
        linear(f"{name}.output.dense", h, 4 * h)
        norm(f"{name}.output.LayerNorm", h)

    visual = "vision_encoder.visual"
    shapes[f"{visual}.conv1.weight"] = (w, 3, sizes.patch, sizes.patch)
    shapes[f"{visual}.class_embedding"] = (w,)
    shapes[f"{visual}.positional_embedding"] = (sizes.grid**2 + 1, w)
    norm(f"{visual}.ln_pre", w)
    norm(f"{visual}.ln_post", w)
    for number in range(sizes.blocks):
        clip_block(f"{visual}.transformer.resblocks.{number}", w)
    shapes["vision_encoder.positional_embedding"] = (sizes.clip_places, sizes.clip_width)
    shapes["vision_encoder.token_embedding.weight"] = (sizes.clip_words, sizes.clip_width)
    norm("vision_encoder.ln_final", sizes.clip_width)
    embeddings = "language_encoder.embeddings"
    shapes[f"{embeddings}.word_embeddings.weight"] = (sizes.words, h)
    shapes[f"{embeddings}.position_embeddings.weight"] = (sizes.places, h)
    shapes[f"{embeddings}.token_type_embeddings.weight"] = (1, h)
    norm(f"{embeddings}.LayerNorm", h)
    for number in range(sizes.text_layers):
        bert_layer(f"language_encoder.encoder.layer.{number}", ("attention",))
    linear("language_encoder.pooler.dense", h, h)
    for modality, size in (("language", h), ("vision", w)):
        linear(f"multi_modal_{modality}_proj", h, size)
        for number in range(sizes.fusion_layers):
            bert_layer(f"multi_modal_{modality}_layers.{number}", ("attention", "crossattention"))
        linear(f"multi_modal_{modality}_pooler.dense", h, h)
    shapes["modality_type_embeddings.weight"] = (2, h)
    if "mlm" in heads:
        linear("mlm_head.transform.dense", h, h)
        norm("mlm_head.transform.LayerNorm", h)
        shapes.update({"mlm_head.decoder.weight": (sizes.words, h), "mlm_head.bias": (sizes.words,)})
    if "mim" in heads:
        linear("mim_head.decoder_embed", d, h)
        shapes["mim_head.mask_token"] = (1, 1, d)
        shapes["mim_head.decoder_pos_embed"] = (1, sizes.grid**2 + 1, d)
        for number in range(sizes.decoder_blocks):
            clip_block(f"mim_head.decoder.resblocks.{number}", d)
        norm("mim_head.decoder_norm", d)
        linear("mim_head.decoder_pred", 3 * sizes.patch**2, d)
    if "itm" in heads:
        linear("itm_head.fc", 2, 2 * h)
    if "feal" in heads:
        linear("feal_proj", h, h)
    for task in heads & {"vqa", "cls"}:
        linear(f"{task}_head.0", 2 * h, 2 * h)
        norm(f"{task}_head.1", 2 * h)
        linear(f"{task}_head.3", answers, 2 * h)
    if "irtr" in heads:
        linear("irtr_head", 1, 2 * h)
    return shapes


def released_state(
    sizes: Sizes, heads: frozenset[str], fill: Callable[[Shape], Tensor], answers: int = 0
) -> dict[str, Tensor]:
    """A student's tensors, with the released buffer of position ids; see `released_shapes`."""
    state = {name: fill(shape) for name, shape in released_shapes(sizes, heads, answers).items()}
    if "mim" in heads:
        state["mim_head.decoder_pos_embed"] = sincos_positions(sizes.decoder, sizes.grid)[None]
    state["language_encoder.embeddings.position_ids"] = torch.arange(sizes.places)[None]
    return state
