"""A split's images and texts, each encoded once by its own encoder, joined over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.utilities.distributed import gather_all_tensors

from umd.batch import ImageTextBatch
from umd.distributed import rank_and_ranks
from umd.files import gather_objects
from umd.metrics.images import image_numbers

Cache = Literal["cpu", "device"]
_PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """M pairs with U different texts. All texts are here, and the images of this rank's share of the pairs.

    Attributes:
        text: (U, L, W_T) features of the different texts, zero at padding.
        text_mask: (U, L) bool, True at real tokens.
        strings: U texts as they were before tokenisation.
        text_of: (M,) int64, which of the U texts belongs to a pair.
        image_of: (M,) int64, the number of a pair's image: see `umd.metrics.images.image_numbers`.
        image: (N, 1 + P, W_I) features of the images of this rank's N pairs, where the cache is.
        image_summary: (M, W_I) summary tokens of all images.
        own: (N,) int64, which of the M pairs these are; every pair is one rank's.
        own_index: N places in the split.
        own_names: N times sample name, image name and text.
    """

    text: Tensor
    text_mask: Tensor
    strings: tuple[str, ...]
    text_of: Tensor
    image_of: Tensor
    image: Tensor
    image_summary: Tensor
    own: Tensor
    own_index: tuple[int, ...]
    own_names: tuple[tuple[str, str, str], ...]


class GalleryBuilder:
    """Collects the features of one pass over a split.

    Args:
        cache: where image features wait: "cpu", or "device" for the one that the model is on.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._index: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._text: list[Tensor] = []
        self._image: list[Tensor] = []
        self._summary: list[Tensor] = []
        self._names: list[tuple[str, str, str]] = []

    def add(self, batch: ImageTextBatch, text: Tensor, image: Tensor) -> None:
        """Add B pairs; nothing is exchanged between ranks.

        In mixed precision, features are kept in the lower precision, in which the fusion reads them anyway.

        Args:
            batch: the pairs.
            text: (B, L, W_T), from the text encoder.
            image: (B, 1 + P, W_I), from the vision encoder.
        """
        device = text.device.type
        if torch.is_autocast_enabled(device):
            text, image = (features.to(torch.get_autocast_dtype(device)) for features in (text, image))
        self._index.append(batch.index)
        self._ids.append(batch.input_ids.masked_fill(~batch.attention_mask, _PADDING))
        self._text.append(text)
        self._image.append(image.cpu() if self.cache == "cpu" else image)
        self._summary.append(image[:, 0].clone())
        self._names += zip(batch.sample_ids, batch.image_names, batch.texts, strict=True)

    def join(self) -> Gallery:
        """All ranks' texts, in the order of the split, and forget what was collected; wants all ranks.

        A distributed sampler repeats pairs to even out its ranks: of a pair that is there twice, the first counts.
        Equal texts become one, so that they score exactly alike.
        """
        index, summary, ids, text = self._index, self._summary, self._ids, self._text
        image, names = torch.cat(self._image), self._names
        self.clear()
        device = text[0].device
        indices = _gather(torch.cat(index))
        rank, _ = rank_and_ranks()
        places, first = np.unique(torch.cat(indices).cpu().numpy(), return_index=True)
        begin = sum(len(part) for part in indices[:rank])
        own = np.flatnonzero((first >= begin) & (first < begin + len(indices[rank])))
        local = first[own] - begin

        chosen = torch.from_numpy(first).to(device)
        all_ids = _stack(_gather(_stack(ids, _PADDING)), _PADDING)[chosen]
        all_text = _stack(_gather(_stack(text, 0)), 0)[chosen]
        named = [name for part in gather_objects([(image, text) for _, image, text in names]) for name in part]
        pair_images, pair_texts = zip(*(named[place] for place in first), strict=True)
        different, text_of = torch.unique(all_ids, dim=0, return_inverse=True)
        last = torch.full((len(different),), len(places), device=device)
        shown = last.scatter_reduce(0, text_of, torch.arange(len(places), device=device), "amin")
        return Gallery(
            text=all_text[shown],
            text_mask=different != _PADDING,
            strings=tuple(pair_texts[place] for place in shown.tolist()),
            text_of=text_of,
            image_of=image_numbers(pair_images),
            image=image[torch.from_numpy(local).to(image.device)],
            image_summary=torch.cat(_gather(torch.cat(summary)))[chosen],
            own=torch.from_numpy(own).to(device),
            own_index=tuple(places[own].tolist()),
            own_names=tuple(names[place] for place in local),
        )


def join_rows(rows: Tensor, own: Tensor) -> Tensor:
    """All ranks' rows (N, ...) as (M, ...), each put at its place `own`, (N,); wants all ranks."""
    joined = torch.cat(_gather(rows))
    return torch.empty_like(joined).index_copy(0, torch.cat(_gather(own)), joined)


def _gather(tensor: Tensor) -> list[Tensor]:
    """Every rank's tensor, of any shape."""
    if rank_and_ranks()[1] == 1:
        return [tensor]
    parts: list[Tensor] = gather_all_tensors(tensor)
    return parts


def _stack(parts: Sequence[Tensor], padding: int) -> Tensor:
    """Parts (n, L, ...) as one (N, longest L, ...)."""
    longest = max(part.shape[1] for part in parts)
    filled = (
        functional.pad(part, (0, 0) * (part.ndim - 2) + (0, longest - part.shape[1]), value=padding) for part in parts
    )
    return torch.cat(list(filled))
