"""Which stage a released UMD or M3AE checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from umd.encoders.multimodal import Pooling
from umd.files import UserError
from umd.modules import Classification, MRPretrain, Retrieval, TDCalib, VQAClassifier
from umd.modules.umd_stage import UMDStage
from umd.released.layout import Heads, TaskHead, decoder_settings, encoder_settings

Origin = Literal["umd", "m3ae"]

_NAMED: dict[TaskHead | None, tuple[str, str]] = {"vqa_head": ("answer", "answers"), "cls_head": ("class", "classes")}


def build_stage(
    weights: Mapping[str, Tensor],
    origin: Origin,
    heads: Heads,
    task: TaskHead | None,
    answers: Sequence[str] | None,
    classes: Sequence[str] | None,
) -> tuple[UMDStage, list[str]]:
    """The module that renamed weights belong to, without memory for its own, and notes on how it was chosen.

    Args:
        weights: as `umd.released.layout.rename_weights` gives them.
        origin: whose code wrote them.
        heads: numbers of attention heads where they are not width / 64.
        task: the released name of the downstream head; None for a checkpoint of pre-training or calibration.
        answers: the vocabulary of an answer head, in its order.
        classes: the classes of a class head, in its order.

    Raises:
        UserError: names that the head needs are not given, or given without such a head, or not as many as it
            has; or no stage has these parts.
    """
    names = _head_names(weights, task, {"answers": answers, "classes": classes})
    with torch.device("meta"):
        if task is None:
            return _reconstruction(weights, origin, heads), []
        pooling, notes = _pooling(origin, task)
        encoder = encoder_settings(weights, heads, pooling)
        if task == "vqa_head":
            return VQAClassifier(encoder, answers=names), notes
        if task == "cls_head":
            return Classification(encoder, classes=names), notes
        return Retrieval(encoder), notes


def _head_names(
    weights: Mapping[str, Tensor], task: TaskHead | None, given: Mapping[str, Sequence[str] | None]
) -> list[str]:
    """The names of what the head tells apart; none for a head without."""
    head, wanted = _NAMED.get(task, ("", ""))
    for (kind, option), names in zip(_NAMED.values(), given.values(), strict=True):
        if names is not None and option != wanted:
            raise UserError(f"--{option} was given, but the checkpoint has no {kind} head")
    if not head:
        return []
    count = weights["head.last.weight"].shape[0]
    names = given[wanted]
    if names is None:
        raise UserError(
            f"the checkpoint has {'an' if head == 'answer' else 'a'} {head} head over {count} {wanted}, which it does "
            f"not name: give them, one a line in the order of their labels, with --{wanted} FILE"
        )
    if len(names) != count:
        raise UserError(f"--{wanted} holds {len(names)} {wanted}, the checkpoint's {head} head has {count}")
    return list(names)


def _pooling(origin: Origin, task: TaskHead) -> tuple[Pooling, list[str]]:
    """What the released fine-tuning pools, or the nearest that the stage takes; M3AE pools the first token."""
    if origin == "m3ae":
        return "first", []
    if task == "irtr_head":
        return "mean", [
            "pooling is 'mean', over real tokens. The released fine-tuning averages over padding too, which retrieval "
            "does not take: scores, and recall, differ from the released ones until the model is fine-tuned again"
        ]
    return "mean_padded", [
        "pooling is 'mean_padded', as in the released fine-tuning: features then depend on how far texts "
        "are padded, which the released code does to the full text length"
    ]


def _reconstruction(weights: Mapping[str, Tensor], origin: Origin, heads: Heads) -> UMDStage:
    """Pre-training or, without a matching head, calibration."""
    held = {name.split(".")[0] for name in weights}
    if not {"image_decoder", "text_decoder"} <= held:
        raise UserError(f"no stage has these parts alone: {', '.join(sorted(held))}")
    encoder = encoder_settings(weights, heads, "first")
    reconstruction = decoder_settings(weights, heads, origin)
    if "matching_head" in held:
        return MRPretrain(encoder, reconstruction=reconstruction)
    calibration = TDCalib(encoder, reconstruction=reconstruction)
    calibration.carry_only(held)
    return calibration
