"""The classification loss: one softmax over the classes (UMD section 3.3.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, averaged over the samples whose class is known.

    Args:
        logits: (B, C).
        labels: (B,) int64; a negative label (a class that the model does not have) counts for nothing.

    Returns:
        A scalar; zero, with a gradient of zero for every parameter, where no class is known.
    """
    known = labels >= 0
    losses = functional.cross_entropy(logits.float(), labels.clamp(min=0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)
