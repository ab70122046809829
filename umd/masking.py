"""Random masks over patches and tokens, and the pairs of image-text matching: pure functions of a Generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

IGNORED = -100


@dataclass(frozen=True, slots=True)
class PatchMask:
    """Which patches of each image are hidden.

    Attributes:
        keep: (B, K) int64, indices of the patches that stay visible.
        masked: (B, P) bool, True at hidden patches.
    """

    keep: Tensor
    masked: Tensor

    def drop(self, tokens: Tensor) -> Tensor:
        """Gather the summary token and the kept patches: (B, 1 + P, W) -> (B, 1 + K, W)."""
        kept = gather_tokens(tokens[:, 1:], self.keep)
        return torch.cat([tokens[:, :1], kept], dim=1)


@dataclass(frozen=True, slots=True)
class MaskedTokens:
    """A text with some tokens hidden.

    Attributes:
        input_ids: (B, L) int64, what the encoder reads.
        labels: (B, L) int64, the true id at hidden positions, `IGNORED` elsewhere.
    """

    input_ids: Tensor
    labels: Tensor


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by index: (B, N, W) and (B, K) -> (B, K, W)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def mask_patches(batch_size: int, patches: int, ratio: float, generator: Generator) -> PatchMask:
    """Hide a random share of each image's patches (MAE; UMD section 3.2.1).

    Args:
        batch_size: B.
        patches: P.
        ratio: share that is hidden, in [0, 1); at least one patch stays.
        generator: source of randomness; the mask lives on its device.

    Returns:
        A mask with K = floor(P * (1 - ratio)) kept patches, in increasing order.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"image_mask_ratio is {ratio}; it must lie in [0, 1)")
    # In floating point 100 * (1 - 0.9) is a little less than 10.
    count = max(1, int(round(patches * (1 - ratio), 6)))
    scores = torch.rand(batch_size, patches, generator=generator, device=generator.device)
    keep = scores.argsort(dim=1)[:, :count].sort(dim=1).values
    masked = torch.ones(batch_size, patches, dtype=torch.bool, device=generator.device)
    return PatchMask(keep, masked.scatter(1, keep, False))


def mask_tokens(
    input_ids: Tensor,
    special_tokens_mask: Tensor,
    *,
    mask_token_id: int,
    vocab_size: int,
    ratio: float,
    generator: Generator,
    word_ids: Tensor | None = None,
    always_mask: bool = False,
) -> MaskedTokens:
    """Hide a random share of each text's tokens: 80 % by the mask token, 10 % by a random one, 10 % left (BERT).

    Args:
        input_ids: (B, L) int64.
        special_tokens_mask: (B, L) bool, True where nothing may be hidden.
        mask_token_id: id of the mask token.
        vocab_size: random tokens are drawn from 0..vocab_size - 1.
        ratio: share of the units that is chosen, rounded; at least one where a text has any.
        generator: source of randomness, on the device of `input_ids`.
        word_ids: (B, L) int64, -1 at special tokens; given, whole words are chosen instead of tokens.
        always_mask: hide every chosen token by the mask token (GGP section 2.2.2).

    Returns:
        The changed ids and the labels, both (B, L).
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"text_mask_ratio is {ratio}; it must lie in [0, 1]")
    device = input_ids.device
    length = input_ids.shape[1]
    maskable = ~special_tokens_mask
    positions = torch.arange(length, device=device).expand_as(input_ids)
    units = positions if word_ids is None else torch.where(maskable, word_ids, 0)
    # In whole numbers: on CUDA, scatter_reduce does not know bool.
    exists = torch.zeros_like(units).scatter_reduce(1, units, maskable.long(), reduce="amax").bool()
    number = exists.sum(1)
    chosen = (number * ratio).round().clamp(min=1).minimum(number)
    scores = torch.rand(input_ids.shape, generator=generator, device=device).masked_fill(~exists, 2.0)
    ranks = scores.argsort(dim=1).argsort(dim=1)
    hidden = (ranks < chosen[:, None]).gather(1, units) & maskable
    labels = torch.where(hidden, input_ids, IGNORED)
    if always_mask:
        return MaskedTokens(torch.where(hidden, mask_token_id, input_ids), labels)
    fate = torch.rand(input_ids.shape, generator=generator, device=device)
    random_ids = torch.randint(vocab_size, input_ids.shape, generator=generator, device=device)
    changed = torch.where(hidden & (fate < 0.8), mask_token_id, input_ids)
    changed = torch.where(hidden & (fate >= 0.9), random_ids, changed)
    return MaskedTokens(changed, labels)


def swap_images(batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Pair half of the texts with another sample's image (UMD Eq. 6).

    Args:
        batch_size: B; with a single sample nothing can be swapped.
        generator: source of randomness; the results live on its device.

    Returns:
        (B,) int64, the image that each text is paired with, never its own where swapped, and
        (B,) int64 labels: 1 = match, 0 = swapped.
    """
    device = generator.device
    order = torch.randperm(batch_size, generator=generator, device=device)
    swapped = torch.zeros(batch_size, dtype=torch.bool, device=device)
    if batch_size > 1:
        swapped[order[: batch_size // 2]] = True
    shift = torch.randint(1, max(2, batch_size), (batch_size,), generator=generator, device=device)
    own = torch.arange(batch_size, device=device)
    return torch.where(swapped, (own + shift) % batch_size, own), (~swapped).long()
