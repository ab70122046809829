"""Recall@K of image-text retrieval."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from umd.metrics.intervals import bootstrap_interval, image_interval

RECALL_AT: Final = (1, 5, 10)

# The keys of a row of `recall_report`, in the order of the table.
RECALL_REPORT_COLUMNS: Final = (
    "metric",
    "queries",
    "recall",
    "interval_low",
    "interval_high",
    "image_interval_low",
    "image_interval_high",
    "images",
)


def shortlists(similarity: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The candidates that a first pass keeps.

    Args:
        similarity: (M, U), image by text.
        length: how many are kept for each query.

    Returns:
        (M, U) bool twice: which texts are kept for an image, and which images for a text.
    """
    lists = []
    for dimension in (1, 0):
        nearest = similarity.topk(min(length, similarity.shape[dimension]), dim=dimension).indices
        nothing = torch.zeros_like(similarity, dtype=torch.bool)
        lists.append(nothing.scatter(dimension, nearest, True))
    return lists[0], lists[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of M images and U different texts.

    Attributes:
        scores: (M, U); only those on a shortlist are read.
        near_text: (M, U) bool, which texts are on an image's shortlist.
        near_image: (M, U) bool, which images are on a text's shortlist.
        text_of: (M,) int64, which of the U texts is an image's own.
        checked: (Q,) int64, the pairs whose image and whose text have all their scores, shortlist or not; None: none.
    """

    scores: Tensor
    near_text: Tensor
    near_image: Tensor
    text_of: Tensor
    checked: Tensor | None = None

    @property
    def to_text(self) -> Tensor:
        """(M, U), minus infinity where a text is not on an image's shortlist."""
        return self.scores.masked_fill(~self.near_text, -torch.inf)

    @property
    def to_image(self) -> Tensor:
        """(M, U), minus infinity where an image is not on a text's shortlist."""
        return self.scores.masked_fill(~self.near_image, -torch.inf)

    def ranks(self) -> dict[str, Tensor]:
        """The rank of each of M queries' own counterpart, by direction: see `true_ranks`."""
        return {
            "text_to_image": true_ranks(self.to_image[:, self.text_of].T),
            "image_to_text": true_ranks(self.to_text[:, self.text_of]),
        }

    def exact_ranks(self, pairs: Tensor) -> dict[str, Tensor]:
        """The ranks (Q,) by direction that the queries `pairs`, (Q,) int64, have among everything."""
        texts = self.text_of[pairs]
        own = self.scores[pairs, texts]
        return {
            "text_to_image": _places(self.scores[:, texts].T, own),
            "image_to_text": _places(self.scores[pairs][:, self.text_of], own),
        }

    def survived(self) -> dict[str, float]:
        """The share in per cent of true pairs that are on the shortlist, by direction."""
        pairs = torch.arange(len(self.text_of), device=self.text_of.device)
        return {
            name: 100 * float(near[pairs, self.text_of].float().mean())
            for name, near in (("text_to_image", self.near_image), ("image_to_text", self.near_text))
        }


def true_ranks(scores: Tensor) -> Tensor:
    """The place of each query's own candidate among all, 1 = first.

    Ties count against the query, and so does what is not a number: its own candidate comes after every other
    one that does not score less.

    Args:
        scores: (M, M), query by candidate; query m's own candidate is m.

    Returns:
        (M,) int64.
    """
    return _places(scores, scores.diagonal())


def _places(scores: Tensor, own: Tensor) -> Tensor:
    return (~(scores < own[:, None])).sum(1)


def recall(ranks: Mapping[str, Tensor]) -> dict[str, float]:
    """Recall@K in per cent: `<direction>_recall<K>` for each direction's (M,) ranks, and their `mean_recall`."""
    values = {
        f"{direction}_recall{k}": 100 * int((places <= k).sum()) / len(places)
        for direction, places in ranks.items()
        for k in RECALL_AT
    }
    return {**values, "mean_recall": sum(values.values()) / len(values)}


def recall_lost(scores: Scores) -> dict[str, float]:
    """What the first pass costs the checked queries, in points of recall, named as by `recall`; nothing without them.

    Less than zero where a shortlist spares a query more candidates than it loses true ones.
    """
    return {name: exact - kept for name, (kept, exact) in _checked_recall(scores).items()}


def _checked_recall(scores: Scores) -> dict[str, tuple[float, float]]:
    if scores.checked is None:
        return {}
    kept = recall({direction: places[scores.checked] for direction, places in scores.ranks().items()})
    return {name: (kept[name], exact) for name, exact in recall(scores.exact_ranks(scores.checked)).items()}


def first_pass_notes(scores: Scores, kept: int) -> list[str]:
    """What a table says of a first pass down to `kept` candidates: the most that it costs, and what it does cost."""
    survived = {name.replace("_", " "): share for name, share in scores.survived().items()}
    shares = ", ".join(f"{name} {share:.1f} %" for name, share in survived.items())
    # A true pair that is lost is not found at any K; one that survives has fewer before it than among all.
    lost = ", ".join(f"{name} {100 - share:.1f}" for name, share in survived.items())
    notes = [
        f"First pass down to {kept} candidates; true pairs that survive it: {shares}. Of what scoring "
        f"every pair finds, it loses at most, in points of recall: {lost}."
    ]
    if scores.checked is not None:
        both = ", ".join(
            f"{re.sub('_recall(?=[0-9])', ' R@', name).replace('_', ' ')} "
            f"{short:.1f} for {exact:.1f} ({short - exact:+.1f})"
            for name, (short, exact) in _checked_recall(scores).items()
        )
        notes.append(f"{len(scores.checked)} queries each way, re-ranked for scored against everything: {both}.")
    return notes


def recall_report(ranks: Mapping[str, Tensor], images: Tensor) -> list[dict[str, Any]]:
    """One row for each direction and K: recall in per cent with its 95 % bootstrap intervals.

    Args:
        ranks: (M,) of the queries' own counterparts, by direction.
        images: (M,) int64, the number of the image of each pair: the intervals over images draw all queries whose
            pair has one image together, as for `umd.metrics.intervals.image_interval`.
    """
    rows = []
    for direction, places in ranks.items():
        for k in RECALL_AT:
            found = (places <= k).cpu()
            name = f"{direction.replace('_', ' ')} R@{k}"
            share = 100 * int(found.sum()) / len(found)
            ends = (*bootstrap_interval(found), *image_interval(found, images.cpu()), len(set(images.tolist())))
            rows.append(dict(zip(RECALL_REPORT_COLUMNS, (name, len(found), share, *ends), strict=True)))
    return rows
