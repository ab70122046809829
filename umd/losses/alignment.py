"""The symmetric contrastive loss of CLIP (Radford et al., 2021), for the presets clip and flip."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from umd.distributed import gather
from umd.encoders.multimodal import MultimodalEncoder
from umd.files import UserError
from umd.losses.contrastive import equal_pairs, identities, unit
from umd.losses.objective import Heads, Objective
from umd.losses.views import Views

MAX_LOG_SCALE = math.log(100)


def alignment_loss(
    image: Tensor, text: Tensor, all_images: Tensor, all_texts: Tensor, equal: Tensor, log_scale: Tensor
) -> Tensor:
    """Each image against all texts, and each text against all images; the own one is right, and so are equal ones.

    CLIP's own loss counts another pair with the same image or caption as a negative. Here the target is shared out
    evenly among them, as in `umd.losses.contrastive`.

    Args:
        image: (B, W), this rank's images; any length, they are normalised here.
        text: (B, W), this rank's texts, row for row.
        all_images: (N, W), all ranks' images, N = B without other ranks.
        all_texts: (N, W), all ranks' texts.
        equal: (B, N) bool, which of all pairs are equal to each of this rank's, itself included.
        log_scale: scalar, logarithm of the inverse temperature.

    Returns:
        A scalar: the mean of both directions' cross-entropies.

    Raises:
        UserError: there is one pair alone, and something is to be learned from it.
    """
    if len(all_texts) == 1 and torch.is_grad_enabled():
        raise UserError("a contrast needs at least two pairs, and a batch is one: set --data.batch_size")
    image, text, all_images, all_texts = map(unit, (image, text, all_images, all_texts))
    scale = log_scale.exp()
    target = equal / equal.sum(1, keepdim=True)
    to_text = functional.cross_entropy(scale * image @ all_texts.T, target)
    to_image = functional.cross_entropy(scale * text @ all_images.T, target)
    return (to_text + to_image) / 2


class Alignment(Objective):
    """CLIP: the first tokens of both uni-modal encoders, contrasted over the pairs of all ranks.

    Args:
        width: size of the vectors that are compared.
    """

    term = "contrastive"
    reads = frozenset({"image_tokens", "text_tokens"})
    hands_over = False

    def __init__(self, width: int) -> None:
        self.width = width

    def heads(self, encoder: MultimodalEncoder) -> Heads:
        """A projection for each modality, and the learned temperature."""
        return {
            "image_contrast": lambda: nn.Linear(encoder.vision.width, self.width, bias=False),
            "text_contrast": lambda: nn.Linear(encoder.text.width, self.width, bias=False),
            "log_scale": lambda: Parameter(torch.tensor(math.log(1 / 0.07))),
        }

    def image(self, views: Views) -> Tensor:
        """The vision encoder's first token, (B, W)."""
        return views.image_tokens[:, 0]

    def __call__(self, views: Views) -> Tensor:
        """The loss over the pairs of all ranks, gathered with their gradients; every rank has as many pairs."""
        image = views.head("image_contrast", nn.Linear)(self.image(views))
        text = views.head("text_contrast", nn.Linear)(views.text_tokens[:, 0])
        shown = identities(views.batch.image_names).to(image.device)
        said = identities(views.batch.texts).to(image.device)
        all_images, all_texts, all_shown, all_said = image, text, shown, said
        if views.gathers:
            all_images, all_texts, all_shown, all_said = (gather(part) for part in (image, text, shown, said))
        equal = equal_pairs(shown, said, all_shown, all_said)
        return alignment_loss(image, text, all_images, all_texts, equal, views.head("log_scale", Parameter))

    @torch.no_grad()
    def after_optimizer_step(self, heads: nn.Module) -> None:
        """Keep the learned temperature from falling below 0.01, as CLIP does."""
        heads.get_parameter("log_scale").clamp_(max=MAX_LOG_SCALE)


class MaskedAlignment(Alignment):
    """FLIP: the same with some of the patches dropped."""

    reads = frozenset({"masked_image_tokens", "text_tokens"})
    image_mask_ratio = 0.5

    def image(self, views: Views) -> Tensor:
        """The first token beside the patches that are left, (B, W)."""
        return views.masked_image_tokens[:, 0]
