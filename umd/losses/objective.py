"""What an objective of pre-training says of itself, so that one machine can train any list of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import Parameter

from umd.encoders.multimodal import MultimodalEncoder
from umd.losses.views import View, Views

Heads = Mapping[str, Callable[[], nn.Module | Parameter]]
"""How each head is made, by its name in the stage and in checkpoints."""


class Objective(ABC):
    """One term of the loss. What is trained, and whether there is a teacher, follows from what all of them read.

    Attributes:
        term: its name in logs; two objectives of one name are two ways to the same term.
        reads: the views of a batch that it is computed from; every parameter that they pass gets a gradient.
        image_mask_ratio: share of patches that it usually hides, if it reads views with hidden patches.
        hands_over: whether a later stage that has the same heads goes on with them.
    """

    term: ClassVar[str]
    reads: ClassVar[frozenset[View]]
    image_mask_ratio: ClassVar[float] = 0.75
    hands_over: ClassVar[bool] = True

    def heads(self, encoder: MultimodalEncoder) -> Heads:
        """What it needs beside the encoder; objectives that name the same head share it."""
        return {}

    @abstractmethod
    def __call__(self, views: Views) -> Tensor:
        """The unweighted term of one batch, a scalar."""

    def after_optimizer_step(self, heads: nn.Module) -> None:  # noqa: B027 - most have nothing to do then
        """Called after every optimizer step with the module that holds the heads."""
