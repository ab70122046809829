"""Features of images that a frozen vision encoder has seen before: on a CPU they cost more than all the rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor


class FeatureMemory:
    """The features of the images that were asked for last, by the images' content.

    Args:
        images: how many images' features are kept; the one that was not asked for longest goes first.
    """

    def __init__(self, images: int = 4096) -> None:
        self.images = images
        self._features: OrderedDict[bytes, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._features)

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureMemory:
        """A copy of an encoder starts with nothing: its weights may go other ways."""
        return FeatureMemory(self.images)

    def clear(self) -> None:
        """Forget all: the weights have changed."""
        self._features.clear()

    def encode(self, pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """`encode(pixels)`, computed for the images that are not remembered, each once.

        Args:
            pixels: (B, 3, S, S) on the CPU.
            encode: from (N, 3, S, S) to (N, ...), each image by itself.
        """
        keys = [blake2b(image.numpy().data, digest_size=16).digest() for image in pixels.contiguous()]
        new = {key: place for place, key in enumerate(keys) if key not in self._features}
        fresh: dict[bytes, Tensor] = {}
        if new:
            # One by one, an image's features depend on no other image, so not on the order of the epochs either.
            fresh = {key: encode(pixels[place : place + 1])[0].clone() for key, place in new.items()}
        found = torch.stack([fresh[key] if key in fresh else self._features[key] for key in keys])
        for key in keys:
            self._features[key] = fresh[key] if key in fresh else self._features[key]
            self._features.move_to_end(key)
        while len(self._features) > self.images:
            self._features.popitem(last=False)
        return found
