"""L_ITM: does this image go with this text? (UMD Eq. 6)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from umd.encoders.fusion import initialize
from umd.encoders.multimodal import MultimodalEncoder
from umd.losses.objective import Heads, Objective
from umd.losses.views import Views


def matching_loss(logits: Tensor, match: Tensor) -> Tensor:
    """Cross-entropy of (B, 2) logits against (B,) int64 labels, 1 = match and 0 = swapped; a scalar."""
    return functional.cross_entropy(logits.float(), match)


class Matching(Objective):
    """ITM: one forward of whole pairs, half of the images swapped within the batch."""

    term = "itm"
    reads = frozenset({"swapped_pair"})

    def heads(self, encoder: MultimodalEncoder) -> Heads:
        """A linear layer on z."""

        def matching_head() -> nn.Linear:
            head = nn.Linear(2 * encoder.width, 2)
            initialize(head, encoder.width)
            return head

        return {"matching_head": matching_head}

    def __call__(self, views: Views) -> Tensor:
        """L_ITM."""
        _, match = views.swaps
        return matching_loss(views.head("matching_head", nn.Linear)(views.swapped_pair.joint), match)
