"""Dropout at a third of its cost on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 2**16
"""A number that is drawn has so many values."""


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU its masks are drawn four elements at a time.

    torch draws 64 bits for each element there, which takes longer than a softmax. 16 decide just as well: the share
    that is dropped is met to 1 in 65,536, and what is kept is scaled by the share that it truly is.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens, of any shape, some elements zero and the others scaled up; in evaluation as they are."""
        if not (self.training and self.p) or tokens.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(tokens)
        dropped = min(round(self.p * STEPS), STEPS - 1)
        draws = torch.empty(-(-tokens.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[: tokens.numel()].view(tokens.shape) >= dropped - STEPS // 2
        return tokens * kept.to(tokens.dtype).mul_(STEPS / (STEPS - dropped))
