"""L_MLM: rebuild hidden tokens (UMD Eq. 2, BERT)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from umd.masking import IGNORED


def masked_language_loss(decoder: Callable[[Tensor], Tensor], text: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the hidden tokens only; the decoder runs on these alone.

    Args:
        decoder: maps (N, D) features to (N, vocabulary) logits.
        text: Z_T, (B, L, D).
        labels: (B, L) int64, true ids at hidden positions, `IGNORED` elsewhere.

    Returns:
        A scalar; zero, with a gradient of zero for every parameter, where nothing is hidden.
    """
    hidden = labels != IGNORED
    logits = decoder(text[hidden])
    if not logits.shape[0]:
        return logits.sum()
    return functional.cross_entropy(logits.float(), labels[hidden])
