"""L_ITM: does this image go with this text? (UMD Eq. 6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def matching_loss(logits: Tensor, match: Tensor) -> Tensor:
    """Cross-entropy of (B, 2) logits against (B,) int64 labels, 1 = match and 0 = swapped; a scalar."""
    return functional.cross_entropy(logits.float(), match)
