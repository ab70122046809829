"""What an answer rests on, for any encoder: integrated gradients (Sundararajan et al., 2017), by captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from umd.encoders.interfaces import TextEncoder
from umd.files import UserError

STEPS = 32
"""Points on the way from nothing to the input at which the gradient is taken."""

AT_ONCE = 8
"""How many of them are computed together."""


def captum_attr() -> Any:  # noqa: ANN401 - it has no types
    """The methods of captum.

    Raises:
        UserError: it is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise UserError("gradients need captum: pip install 'umd[explain]'; the attention needs nothing") from error
    return captum.attr


def patch_gradients(score: Callable[[Tensor], Tensor], pixels: Tensor, blank: Tensor, grid: int) -> Tensor:
    """How much each patch adds to a score, from a blank image on; all together add up to the difference.

    Args:
        score: from (B, 3, S, S) float images in 0..1 to (B,) scores.
        pixels: (1, 3, S, S) float in 0..1.
        blank: the image that stands for none, of the same shape.
        grid: patches along a side; the remainder of S is in none.

    Returns:
        (G, G).
    """
    method = captum_attr().IntegratedGradients(score, multiply_by_inputs=True)
    with torch.enable_grad():
        found: Tensor = method.attribute(pixels, blank, n_steps=STEPS, internal_batch_size=AT_ONCE)
    side = pixels.shape[-1] // grid
    of_pixels = found.detach().sum(1, keepdim=True)[..., : grid * side, : grid * side]
    return functional.avg_pool2d(of_pixels, side)[0, 0] * side**2


def token_gradients(score: Callable[[Tensor], Tensor], text: TextEncoder, input_ids: Tensor, hidden: Tensor) -> Tensor:
    """How much each token adds to a score, from a text of mask tokens on; all together add up to the difference.

    Args:
        score: from (B, L) token ids to (B,) scores.
        text: the text encoder behind it, whose embeddings are followed.
        input_ids: (1, L) int64.
        hidden: the text that stands for none, of the same shape.

    Returns:
        (L,).
    """
    table = next(
        part for part in text.modules() if isinstance(part, nn.Embedding) and part.num_embeddings == text.vocab_size
    )
    method = captum_attr().LayerIntegratedGradients(score, table)
    with torch.enable_grad():
        found: Tensor = method.attribute(input_ids, hidden, n_steps=STEPS, internal_batch_size=AT_ONCE)
    return found.detach().sum(-1)[0]
