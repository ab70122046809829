"""L_ITC: the image-text contrastive loss with a queue and momentum distillation (GGP section 2.2.2, ALBEF)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional


def contrastive_loss(
    image: Tensor,
    text: Tensor,
    image_pool: Tensor,
    text_pool: Tensor,
    own: Tensor,
    temperature: Tensor,
    distillation: float,
) -> Tensor:
    """Cross-entropy of finding each image's text and each text's image among the pool, averaged over both ways.

    The pool holds features of the momentum encoders. A pair's target is 1 - `distillation` at its own place of
    the pool, plus `distillation` times what the momentum encoders themselves find likely (ALBEF, Eq. 6).

    Args:
        image: (B, d) unit vectors of the trained encoder.
        text: (B, d) unit vectors of the trained encoder.
        image_pool: (K, d) unit vectors of the momentum encoder, without gradient.
        text_pool: (K, d), the texts of the same K pairs.
        own: (B,) int64, each pair's place in the pool.
        temperature: a scalar that divides the similarities.
        distillation: weight of the momentum encoders' opinion, in 0..1.

    Returns:
        A scalar.
    """
    with torch.autocast(image.device.type, enabled=False):  # temperatures are small: half precision shows
        both_ways = [
            _one_way(query.float(), key_pool.float(), query_pool[own].float(), own, temperature, distillation)
            for query, query_pool, key_pool in ((image, image_pool, text_pool), (text, text_pool, image_pool))
        ]
        return torch.stack(both_ways).mean()


def _one_way(
    query: Tensor, pool: Tensor, teacher: Tensor, own: Tensor, temperature: Tensor, distillation: float
) -> Tensor:
    predicted = functional.log_softmax(query @ pool.T / temperature, dim=1)
    loss = -(1 - distillation) * predicted.gather(1, own[:, None])[:, 0]
    if distillation:
        likely = functional.softmax(teacher @ pool.T / temperature.detach(), dim=1)
        loss = loss - distillation * (likely * predicted).sum(1)
    return loss.mean()


def hard_negatives(similarity: Tensor, own: Tensor, generator: Generator) -> Tensor:
    """Draw for each of B samples one of K others, the more likely the more similar it is (ALBEF section 3.2).

    Args:
        similarity: (B, K), already divided by the temperature; K is at least 2.
        own: (B,) int64, the place among the K that is the sample's own partner, which is never drawn.
        generator: source of randomness, on the device of `similarity`.

    Returns:
        (B,) int64 places among the K.
    """
    others = similarity.float().scatter(1, own[:, None], -torch.inf)
    # From features that are nan nothing can be drawn; the loss will tell, which an error from here would not.
    return torch.multinomial(others.softmax(1).nan_to_num(1.0), 1, generator=generator)[:, 0]


class PairQueue(nn.Module):
    """The latest `size` pairs of momentum features: a ring, saved in checkpoints (MoCo).

    It starts empty, and only what was enqueued counts as a negative: no random vectors stand in.

    Args:
        size: most pairs it holds; 0 keeps none.
        width: size d of a feature.
    """

    image: Tensor
    text: Tensor
    enqueued: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("image", torch.zeros(size, width))
        self.register_buffer("text", torch.zeros(size, width))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.int64))

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The image and the text features of the F pairs it holds, (F, d) each, F <= size; views, not copies."""
        filled = min(int(self.enqueued), self.size)
        return self.image[:filled], self.text[:filled]

    @torch.no_grad()
    def enqueue(self, image: Tensor, text: Tensor) -> None:
        """Put N pairs, (N, d) each, in the places of the oldest ones; of more than `size` the last remain."""
        if self.size == 0:
            return
        count = len(image)
        places = (self.enqueued + torch.arange(count, device=image.device)) % self.size
        kept = slice(max(0, count - self.size), count)
        self.image[places[kept]] = image[kept].to(self.image.dtype)
        self.text[places[kept]] = text[kept].to(self.text.dtype)
        self.enqueued += count
