"""The VQA loss: one sigmoid per answer (UMD section 3.3.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the A answers, averaged over the B questions.

    Args:
        logits: (B, A).
        labels: (B,) int64; a negative label (the answer is in no vocabulary) makes every answer wrong.

    Returns:
        A scalar.
    """
    target = torch.zeros_like(logits, dtype=torch.float32)
    known = (labels >= 0).to(target.dtype)[:, None]
    target = target.scatter(1, labels.clamp(min=0)[:, None], known)
    return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum") / len(labels)
