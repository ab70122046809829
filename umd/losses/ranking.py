"""The retrieval loss: one true text against others (UMD section 3.3.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def ranking_loss(scores: Tensor) -> Tensor:
    """Cross-entropy of (B, 1 + N) scores, the true candidate's first; a scalar."""
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
