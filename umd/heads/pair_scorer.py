"""H of retrieval: how well an image and a text go together (UMD section 3.3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from umd.encoders.fusion import initialize
from umd.encoders.multimodal import Pooled


class PairScorer(nn.Module):
    """One linear layer, z = [z_T ; z_I] to a score.

    Its bias stays as it is: the same for every candidate, it changes neither the loss nor a rank.

    Scores are float32 at least, in mixed precision too: among thousands of candidates, rounding to half
    precision would make ties.

    Args:
        width: size D of one modality's pooled feature.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(2 * width, 1)
        initialize(self, width)
        self.linear.bias.requires_grad_(False)

    def forward(self, pooled: Pooled) -> Tensor:
        """Scores of N pairs, (N,)."""
        text, image = self.halves(pooled)
        return text + image + self.linear.bias

    def halves(self, pooled: Pooled) -> tuple[Tensor, Tensor]:
        """What each modality adds to the scores of N pairs, bias aside: text (N,) and image (N,)."""
        weight = self.linear.weight[0]
        kind = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(weight.device.type, enabled=False):
            text, image = (
                functional.linear(feature.to(kind), part.to(kind)[None])[:, 0]
                for feature, part in zip((pooled.text, pooled.image), weight.chunk(2), strict=True)
            )
        return text, image

    @torch.no_grad()
    def contributions(self, pooled: Pooled, candidates: int) -> dict[str, Tensor]:
        """C_u = softmax(H_u(Z_u))[ground truth] of Eq. 10 over each image's candidates.

        Args:
            pooled: features of B * C pairs, the candidates of one image side by side, the true one first.
            candidates: number C of texts for each image.

        Returns:
            {"language": C_T, "vision": C_I}, each (B,), detached.
        """
        return {
            name: half.reshape(-1, candidates).softmax(1)[:, 0]
            for name, half in zip(("language", "vision"), self.halves(pooled), strict=True)
        }
