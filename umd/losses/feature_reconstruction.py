"""L_FeaMIM and L_FeaMLM: rebuild the teacher's features of the full pair (UMD Eq. 4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from umd.encoders.multimodal import MultimodalEncoder
from umd.losses.objective import Heads, Objective
from umd.losses.views import Views


def feature_loss(
    projection: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor, valid: Tensor | None
) -> Tensor:
    """Mean squared error between h(student) and h(teacher), the same h on both sides, the target detached.

    Args:
        projection: h, maps D features to those that are compared.
        student: (B, N, D), from the masked pair.
        teacher: (B, N, D), from the full pair, at the same places.
        valid: (B, N) bool, True where the places count; None counts all.

    Returns:
        A scalar.
    """
    target = projection(teacher).detach().float()
    error = (projection(student).float() - target).square().mean(-1)
    if valid is None:
        return error.mean()
    return (error * valid).sum() / valid.sum()


class ImageFeatures(Objective):
    """FeaMIM: the teacher's image features, at the patches that both see or at the hidden ones.

    Args:
        hidden_width: None for the patches that both see; at the hidden ones, width of the image decoder, from whose
            trunk they are rebuilt.
    """

    term = "feature_mim"
    reads = frozenset({"masked_image", "teacher"})

    def __init__(self, hidden_width: int | None) -> None:
        self.hidden_width = hidden_width

    def heads(self, encoder: MultimodalEncoder) -> Heads:
        """h_I and, for hidden patches, a projection from the decoder's width."""
        width, hidden_width = encoder.width, self.hidden_width
        heads: Heads = {"image_feature_projection": lambda: nn.Linear(width, width)}
        return heads if hidden_width is None else {**heads, "trunk_projection": lambda: nn.Linear(hidden_width, width)}

    def __call__(self, views: Views) -> Tensor:
        """L_FeaMIM."""
        projection = views.head("image_feature_projection", nn.Linear)
        target = views.teacher_features.image
        if self.hidden_width is None:
            return feature_loss(projection, views.masked_image, target, None)
        rebuilt = views.head("trunk_projection", nn.Linear)(views.masked_image_trunk[:, 1:])
        return feature_loss(projection, rebuilt, target[:, 1:], views.patch_mask.masked)


class TextFeatures(Objective):
    """FeaMLM: the teacher's text features, at every real token."""

    term = "feature_mlm"
    reads = frozenset({"masked_text", "teacher"})

    def heads(self, encoder: MultimodalEncoder) -> Heads:
        """h_T."""
        return {"text_feature_projection": lambda: nn.Linear(encoder.width, encoder.width)}

    def __call__(self, views: Views) -> Tensor:
        """L_FeaMLM."""
        projection = views.head("text_feature_projection", nn.Linear)
        return feature_loss(projection, views.masked_text, views.teacher_features.text, views.batch.attention_mask)
