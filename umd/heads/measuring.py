"""A look at a head amid a training step that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def measuring(*modules: nn.Module) -> Iterator[None]:
    """Without gradient, without dropout, and without a trace in autocast's memory of converted weights.

    Autocast keeps the half-precision copy of a weight for the rest of its region. A copy made without gradient
    would be used again by the forward that is trained (torch 2.6 to 2.9), and the weight would learn nothing.

    Args:
        modules: they evaluate inside; each of their parts goes back to the mode that it had.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    remembers = torch.is_autocast_cache_enabled()
    for module in modules:
        module.eval()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(remembers)
        for part, training in modes:
            part.training = training
