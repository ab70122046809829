"""VQA losses: one sigmoid per answer (UMD section 3.3.2), or one softmax over all answers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

AnswerLoss = Literal["binary_cross_entropy", "cross_entropy"]


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


def answer_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over the A answers, averaged over the questions whose answer is in the vocabulary.

    Args:
        logits: (B, A).
        labels: (B,) int64; a question with a negative label (its answer is in no vocabulary) counts for nothing.
        label_smoothing: share of the target that is spread evenly over all answers.

    Returns:
        A scalar; zero, with a gradient of zero for every parameter, where no answer is known.
    """
    known = labels >= 0
    losses = functional.cross_entropy(
        logits.float(), labels.clamp(min=0), reduction="none", label_smoothing=label_smoothing
    )
    return (losses * known).sum() / known.sum().clamp(min=1)
