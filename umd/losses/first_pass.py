"""What trains retrieval's first pass, the cosine of an image's and a text's projected first tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umd.losses.contrastive import PairPool, contrastive_loss, identities, unit

TEMPERATURE = 0.07
"""Divides the cosines, constant: where CLIP and GGP start."""


def first_pass_loss(image: Tensor, text: Tensor, image_names: Sequence[str], texts: Sequence[str]) -> Tensor:
    """InfoNCE among B pairs, both ways; pairs of one image or of one text are no negatives of each other.

    Args:
        image: (B, d), projected.
        text: (B, d), those of the same pairs.
        image_names: B names of the images.
        texts: B texts before tokenisation.

    Returns:
        A scalar.
    """
    image, text = unit(image), unit(text)
    who = (identities(names).to(image.device) for names in (image_names, texts))
    own = torch.arange(len(image), device=image.device)
    temperature = torch.tensor(TEMPERATURE, device=image.device)
    return contrastive_loss(image, text, PairPool(image, text, *who), own, temperature, distillation=0.0)
