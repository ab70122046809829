"""L_FeaMIM and L_FeaMLM: rebuild the teacher's features of the full pair (UMD Eq. 4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


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
