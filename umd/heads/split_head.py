"""H: the answer head on z = [z_T ; z_I], and what each half of it says alone (UMD section 3.3.2)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from umd.encoders.fusion import initialize
from umd.encoders.multimodal import Pooled
from umd.heads.measuring import measuring

Contribution = Literal["masked_head", "last_layer"]


class SplitHead(nn.Module):
    """Linear(2D, 2D), LayerNorm, GELU, Linear(2D, A); with one modality D in the place of 2D.

    Args:
        width: size D of one modality's pooled feature.
        classes: number A of answers.
        modalities: how many modalities z is made of, 2 or 1.
    """

    def __init__(self, width: int, classes: int, modalities: int = 2) -> None:
        super().__init__()
        self.width = width
        self.modalities = modalities
        joint = modalities * width
        self.hidden = nn.Sequential(nn.Linear(joint, joint), nn.LayerNorm(joint), nn.GELU())
        self.last = nn.Linear(joint, classes)
        initialize(self, width)
        # Every answer starts at the rate of chance: sigmoids at one half would first have to unlearn A - 1 answers.
        nn.init.constant_(self.last.bias, -math.log(max(classes - 1, 1)))

    def forward(self, pooled: Pooled) -> Tensor:
        """Logits (B, A)."""
        logits: Tensor = self.last(self.hidden(pooled.joint))
        return logits

    def contributions(self, pooled: Pooled, labels: Tensor, method: Contribution = "masked_head") -> dict[str, Tensor]:
        """C_u = softmax(H_u(Z_u))[ground truth] of Eq. 10, for each sample: what one modality alone gives to the truth.

        Args:
            pooled: both modalities' features.
            labels: (B,) int64, the true answers; samples with a negative label contribute nothing.
            method: "masked_head" runs the whole head, in evaluation mode, with the other modality's half of z set
                to zero. "last_layer" is the released code's: it cuts the last linear layer in two halves, with half
                of the bias each, and applies each to that modality's pooled feature. The layer before mixes both
                modalities, so that the last one never sees these features: the values stay at chance, and which
                modality is ahead is a coin flip. Only to reproduce the released code.

        Returns:
            {"language": C_T, "vision": C_I}, each (B,), detached.

        Raises:
            ValueError: z is made of one modality.
        """
        if self.modalities != 2:
            raise ValueError("a model of one modality has no contributions to weigh against each other")
        measure = self._masked if method == "masked_head" else self._halved
        with measuring(self):
            text, image = measure(pooled)
            known = (labels >= 0).to(text.dtype)
            place = labels.clamp(min=0)[:, None]
            return {
                name: logits.float().softmax(1).gather(1, place)[:, 0] * known
                for name, logits in (("language", text), ("vision", image))
            }

    def _masked(self, pooled: Pooled) -> tuple[Tensor, Tensor]:
        text = self(Pooled(pooled.text, torch.zeros_like(pooled.image)))
        image = self(Pooled(torch.zeros_like(pooled.text), pooled.image))
        return text, image

    def _halved(self, pooled: Pooled) -> tuple[Tensor, Tensor]:
        weight_text, weight_image = self.last.weight[:, : self.width], self.last.weight[:, self.width :]
        half_bias = self.last.bias / 2
        text = nn.functional.linear(pooled.text, weight_text, half_bias)
        image = nn.functional.linear(pooled.image, weight_image, half_bias)
        return text, image
