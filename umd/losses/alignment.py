"""The symmetric contrastive loss of CLIP (Radford et al., 2021), for the presets clip and flip."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def alignment_loss(
    image: Tensor, text: Tensor, all_images: Tensor, all_texts: Tensor, offset: int, log_scale: Tensor
) -> Tensor:
    """Each image against all texts, and each text against all images; the own one is right.

    Args:
        image: (B, W), this rank's images; any length, they are normalised here.
        text: (B, W), this rank's texts, row for row.
        all_images: (N, W), all ranks' images, N = B without other ranks.
        all_texts: (N, W), all ranks' texts.
        offset: row of `all_images` where this rank's begin.
        log_scale: scalar, logarithm of the inverse temperature.

    Returns:
        A scalar: the mean of both directions' cross-entropies.
    """
    image, text, all_images, all_texts = (
        functional.normalize(vectors.float(), dim=-1) for vectors in (image, text, all_images, all_texts)
    )
    scale = log_scale.exp()
    own = torch.arange(offset, offset + len(image), device=image.device)
    to_text = functional.cross_entropy(scale * image @ all_texts.T, own)
    to_image = functional.cross_entropy(scale * text @ all_images.T, own)
    return (to_text + to_image) / 2
