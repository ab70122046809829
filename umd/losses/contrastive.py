"""L_ITC: the image-text contrastive loss with a queue and momentum distillation (GGP section 2.2.2, ALBEF)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

logger = logging.getLogger(__name__)


def identities(names: Sequence[str]) -> Tensor:
    """(N,) int64 numbers that are equal where names are, and the same in every process."""
    digests = (blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


def unit(features: Tensor) -> Tensor:
    """(N, d) as unit vectors in float32."""
    return functional.normalize(features.float(), dim=-1)


def equal_pairs(image: Tensor, text: Tensor, others_image: Tensor, others_text: Tensor) -> Tensor:
    """Which pairs share the image or the caption, so that neither is a negative of the other.

    Args:
        image: (B,) int64, `identities` of the images' names.
        text: (B,) int64, `identities` of the captions.
        others_image: (K,) int64, those of other pairs.
        others_text: (K,) int64.

    Returns:
        (B, K) bool.
    """
    return (image[:, None] == others_image) | (text[:, None] == others_text)


@dataclass(frozen=True, slots=True)
class PairPool:
    """Momentum features of K pairs, and who they are.

    Attributes:
        image: (K, d) unit vectors, without gradient.
        text: (K, d), the texts of the same pairs.
        image_identity: (K,) int64, `identities` of the images' names.
        text_identity: (K,) int64, `identities` of the captions.
    """

    image: Tensor
    text: Tensor
    image_identity: Tensor
    text_identity: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def followed_by(self, other: PairPool) -> PairPool:
        """These pairs, then the other ones."""
        return PairPool(
            torch.cat([self.image, other.image]),
            torch.cat([self.text, other.text]),
            torch.cat([self.image_identity, other.image_identity]),
            torch.cat([self.text_identity, other.text_identity]),
        )

    def equal(self, rows: Tensor) -> Tensor:
        """(B, K) bool: which pairs are equal to those at the B `rows` (int64), themselves included."""
        own = self.image_identity[rows], self.text_identity[rows]
        return equal_pairs(*own, self.image_identity, self.text_identity)


def contrastive_loss(
    image: Tensor, text: Tensor, pool: PairPool, own: Tensor, temperature: Tensor, distillation: float
) -> Tensor:
    """Cross-entropy of finding each image's text and each text's image among the pool, averaged over both ways.

    A pair's target is 1 - `distillation`, shared out evenly among the pairs of the pool that are equal to it, plus
    `distillation` times what the momentum encoders themselves find likely (ALBEF, Eq. 6).

    Args:
        image: (B, d) unit vectors of the trained encoder.
        text: (B, d) unit vectors of the trained encoder.
        pool: K pairs as the momentum encoders see them.
        own: (B,) int64, each pair's place in the pool.
        temperature: a scalar that divides the similarities.
        distillation: weight of the momentum encoders' opinion, in 0..1.

    Returns:
        A scalar.
    """
    equal = pool.equal(own)
    target = equal / equal.sum(1, keepdim=True)
    with torch.autocast(image.device.type, enabled=False):  # temperatures are small: half precision shows
        both_ways = [
            _one_way(query.float(), keys.float(), teacher[own].float(), target, temperature, distillation)
            for query, teacher, keys in ((image, pool.image, pool.text), (text, pool.text, pool.image))
        ]
        return torch.stack(both_ways).mean()


def _one_way(
    query: Tensor, keys: Tensor, teacher: Tensor, target: Tensor, temperature: Tensor, distillation: float
) -> Tensor:
    predicted = functional.log_softmax(query @ keys.T / temperature, dim=1)
    if distillation:
        likely = functional.softmax(teacher @ keys.T / temperature.detach(), dim=1)
        target = (1 - distillation) * target + distillation * likely
    return -(target * predicted).sum(1).mean()


def hard_negatives(similarity: Tensor, equal: Tensor, generator: Generator) -> Tensor:
    """Draw for each of B samples one of K others, the more likely the more similar it is (ALBEF section 3.2).

    Args:
        similarity: (B, K), already divided by the temperature.
        equal: (B, K) bool, the sample's own partner and those equal to it, which are never drawn. What is drawn for
            a sample to which all are equal means nothing.
        generator: source of randomness, on the device of `similarity`.

    Returns:
        (B,) int64 places among the K.
    """
    others = similarity.float().masked_fill(equal, -torch.inf)
    # From features that are nan nothing can be drawn; the loss will tell, which an error from here would not.
    return torch.multinomial(others.softmax(1).nan_to_num(1.0), 1, generator=generator)[:, 0]


class PairQueue(nn.Module):
    """The latest `size` pairs of momentum features and who they are: a ring, saved in checkpoints (MoCo).

    It starts empty, and only what was enqueued counts as a negative: no random vectors stand in. It starts empty too
    from a checkpoint that does not say who its pairs are, as earlier versions of this project wrote them.

    Args:
        size: most pairs it holds; 0 keeps none.
        width: size d of a feature.
    """

    image: Tensor
    text: Tensor
    image_identity: Tensor
    text_identity: Tensor
    enqueued: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        for name in ("image", "text"):
            self.register_buffer(name, torch.zeros(size, width))
            self.register_buffer(f"{name}_identity", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_pre_hook(_empty_without_identities)  # type: ignore[no-untyped-call]
        self._known: tuple[Tensor, int, int] | None = None

    def pairs(self) -> PairPool:
        """The F pairs it holds, F <= size; views, not copies."""
        filled = min(self._count(), self.size)
        return PairPool(*(part[:filled] for part in self._parts()))

    def _count(self) -> int:
        """`enqueued`, read from the device only where somebody else has written it: a checkpoint, a step undone."""
        if self._known is None or self._known[0] is not self.enqueued or self._known[1] != self.enqueued._version:
            self._known = self.enqueued, self.enqueued._version, int(self.enqueued)
        return self._known[2]

    @torch.no_grad()
    def enqueue(self, pairs: PairPool) -> None:
        """Put N pairs in the places of the oldest ones; of more than `size` the last remain."""
        if self.size == 0:
            return
        held, count = self._count(), len(pairs)
        places = (self.enqueued + torch.arange(count, device=self.image.device)) % self.size
        kept = slice(max(0, count - self.size), count)
        new = (pairs.image, pairs.text, pairs.image_identity, pairs.text_identity)
        for part, values in zip(self._parts(), new, strict=True):
            part[places[kept]] = values[kept].to(part.dtype)
        self.enqueued += count
        self._known = self.enqueued, self.enqueued._version, held + count

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.image, self.text, self.image_identity, self.text_identity


def _empty_without_identities(queue: PairQueue, state: dict[str, Any], prefix: str, *_: object) -> None:
    names = [f"{prefix}{name}_identity" for name in ("image", "text")]
    if f"{prefix}enqueued" not in state or any(name in state for name in names):
        return
    if held := min(int(state[f"{prefix}enqueued"]), queue.size):
        logger.warning(
            "the checkpoint's queue of negatives holds %d pairs and does not say which images and captions they are "
            "of: it starts empty",
            held,
        )
    for name in names:
        state[name] = torch.zeros(queue.size, dtype=torch.int64)
    state[f"{prefix}enqueued"] = torch.zeros_like(state[f"{prefix}enqueued"])
