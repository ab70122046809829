"""Which samples share an image: the numbers that stand for images, and how often each image is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

# Resamples times images that are drawn at once.
_BLOCK = 4_000_000


def image_numbers(names: Sequence[str]) -> Tensor:
    """A number for each name, (B,) int64 on the CPU: the same on every rank and machine, since it is a digest.

    Metrics exchange numbers between ranks, not names. 63 bits: among a million images two that share a number
    are to be expected once in ten million data sets.
    """
    import torch  # not above: the commands that compare and score read this file, and torch takes seconds

    digests = (hashlib.sha256(name.encode()).digest() for name in names)
    return torch.tensor([int.from_bytes(digest[:8], "big") >> 1 for digest in digests], dtype=torch.int64)


def numbered(images: Any) -> tuple[NDArray[np.intp], int]:  # noqa: ANN401 - whatever numpy reads as a vector
    """Number the images from 0 in their first order, in whatever form they are named.

    Returns:
        (N,) numbers, and how many images C there are.
    """
    _, first, places = np.unique(np.asarray(images), return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.intp)
    number[np.argsort(first)] = np.arange(len(first))
    return number[places], len(first)


def drawn_images(count: int, resamples: int, seed: int, rows: int | None = None) -> Iterator[NDArray[np.float64]]:
    """Bootstrap resamples of `count` images: how often each was drawn, as (R', count) until R' sum up to `resamples`.

    Each resample draws as many images as there are, with replacement, every image as likely as any other.

    Args:
        count: number of images, at least 1.
        resamples: number R of resamples.
        seed: of the drawing; the resamples do not depend on how many are drawn at once.
        rows: most resamples at once; None: as many as fit into about 100 MB.
    """
    generator = np.random.default_rng(seed)
    block = rows or max(1, _BLOCK // count)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        numbers = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(numbers.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
