"""Accuracy, and macro-averaged AUC, sensitivity and specificity, each with its bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from umd.metrics.images import drawn_images, numbered

# The keys of a row of `classification_report`, in the order of the table.
CLASSIFICATION_REPORT_COLUMNS: Final = (
    "metric",
    "samples",
    "value",
    "interval_low",
    "interval_high",
    "image_interval_low",
    "image_interval_high",
    "images",
)

# Resamples times samples that are worked on at once.
_BLOCK: Final = 2_000_000

Array = NDArray[np.float64]


def weighted_auc(scores: NDArray[Any], positive: NDArray[np.bool_], weights: Array) -> Array:
    """Area under the ROC curve: how often a positive sample scores above a negative one, a tie counting one half.

    Args:
        scores: (N,).
        positive: (N,) bool.
        weights: (R, N), how much each sample counts in each of R cases.

    Returns:
        (R,), in 0..1; not a number where the positive samples, or the negative ones, weigh nothing.
    """
    order = np.argsort(scores, kind="stable")
    groups = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # starts of runs of equal scores
    ordered = weights[:, order]
    above = np.add.reduceat(ordered * positive[order], groups, axis=1)
    below = np.add.reduceat(ordered * ~positive[order], groups, axis=1)
    wins = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    return _share(wins, above.sum(axis=1) * below.sum(axis=1))


def weighted_metrics(probabilities: NDArray[Any], labels: NDArray[Any], weights: Array) -> dict[str, Array]:
    """The four metrics in per cent, for samples that count in R different ways.

    Sensitivity and specificity are those of the most probable class, AUC is one class against the rest. Macro
    averages are over the classes that occur (with a weight) among the labels. A sample whose class the model
    does not have counts as wrong: such samples are one more class of which none is found, and no other class's.

    Args:
        probabilities: (N, C).
        labels: (N,) int64, -1 for a class that the model does not have.
        weights: (R, N).

    Returns:
        `accuracy`, `macro_auc`, `macro_sensitivity`, `macro_specificity`, each (R,); what is undefined (an AUC
        where only one class occurs) is not a number.
    """
    predicted = probabilities.argmax(axis=1)
    areas, found, spared = [], [], []
    for number in np.unique(labels):
        own, said = labels == number, predicted == number
        found.append(_share(weights @ (own & said), weights @ own))
        if number >= 0:
            occurs = np.where(weights @ own > 0, 1.0, np.nan)
            spared.append(occurs * _share(weights @ (~own & ~said), weights @ ~own))
            areas.append(weighted_auc(probabilities[:, number], own, weights))
    return {
        "accuracy": 100 * _share(weights @ (predicted == labels), weights.sum(axis=1)),
        "macro_auc": 100 * _mean(areas, len(weights)),
        "macro_sensitivity": 100 * _mean(found, len(weights)),
        "macro_specificity": 100 * _mean(spared, len(weights)),
    }


def classification_report(
    probabilities: Tensor,
    labels: Tensor,
    images: Tensor,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each metric, with its percentile bootstrap intervals over samples and over images.

    Args:
        probabilities: (N, C), as for `weighted_metrics`.
        labels: (N,) int64.
        images: (N,) int64, the number of each sample's image: see `umd.metrics.images.image_numbers`. Over images,
            all samples of one are drawn together, as for `umd.metrics.intervals.image_interval`.
        confidence: the probability that an interval is meant to hold the value, between 0 and 1.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        Rows with the keys `CLASSIFICATION_REPORT_COLUMNS`, in per cent; what is undefined is None. A resample
        in which a metric is undefined does not count towards its interval.
    """
    scores, numbers = probabilities.double().cpu().numpy(), labels.cpu().numpy()
    samples = len(numbers)
    value = weighted_metrics(scores, numbers, np.ones((1, samples)))
    places, count = numbered(images.cpu())
    block = max(1, _BLOCK // samples)
    over_images = (drawn[:, places] for drawn in drawn_images(count, resamples, seed, block))
    resampled = {
        "interval": _resampled(scores, numbers, _drawn_samples(samples, resamples, seed, block)),
        "image_interval": _resampled(scores, numbers, over_images),
    }
    rows = []
    for name, (single,) in value.items():
        row: dict[str, Any] = dict.fromkeys(CLASSIFICATION_REPORT_COLUMNS)
        row |= {"metric": name.replace("_", " ").replace("auc", "AUC"), "samples": samples, "images": count}
        if np.isfinite(single):
            row["value"] = float(single)
            tail = (1 - confidence) / 2
            for interval, drawn in resampled.items():
                low, high = np.nanquantile(drawn[name], [tail, 1 - tail])
                row |= {f"{interval}_low": float(low), f"{interval}_high": float(high)}
        rows.append(row)
    return rows


def _drawn_samples(samples: int, resamples: int, seed: int, block: int) -> Iterator[Array]:
    """Bootstrap resamples of single samples: how often each counts, (R', N), at most `block` at once."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield generator.multinomial(samples, np.full(samples, 1 / samples), size=size).astype(np.float64)


def _resampled(scores: Array, labels: NDArray[Any], weights: Iterable[Array]) -> dict[str, Array]:
    """Each metric in all resamples, (R,), of which some are given at once."""
    parts = [weighted_metrics(scores, labels, some) for some in weights]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class ClassificationScores(Metric):
    """Accuracy, macro AUC, macro sensitivity and macro specificity in per cent; each sample counts once.

    A distributed sampler repeats samples to even out its ranks, so the place of a sample in its split is kept
    beside its scores, and the metrics are taken after the ranks are joined.

    Args:
        classes: number C of classes.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    places: list[Tensor]
    probabilities: list[Tensor]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("places", default=[], dist_reduce_fx="cat")
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self._joined = self._nothing()

    def update(self, index: Tensor, image: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch; nothing is exchanged between ranks.

        Args:
            index: (B,) int64, place of the sample in its split.
            image: (B,) int64, number of its image.
            probabilities: (B, C).
            labels: (B,) int64, -1 for a class that the model does not have.

        Raises:
            ValueError: the arguments do not go together.
        """
        shapes = [tuple(values.shape) for values in (index, image, labels, probabilities)]
        if shapes != [*[(len(index),)] * 3, (len(index), self.classes)]:
            wanted = f"(B,), (B,), (B,), (B, {self.classes})"
            raise ValueError(f"index, image, labels, probabilities: must be {wanted}, got {shapes}")
        self.places.append(torch.stack([column.to(self.device) for column in (index, image, labels)], dim=1))
        self.probabilities.append(probabilities.detach().float().to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Each metric that is defined, as a scalar in per cent; joins the ranks, so call it on all."""
        probabilities, labels, _ = self._join()
        if not len(labels):
            return {}
        values = weighted_metrics(probabilities.double().numpy(), labels.numpy(), np.ones((1, len(labels))))
        return {
            name: torch.tensor(single, dtype=torch.float32, device=self.device)
            for name, (single,) in values.items()
            if np.isfinite(single)
        }

    def report(self) -> list[dict[str, Any]]:
        """The rows of `classification_report` for all ranks' samples, none where there are none.

        Wants all ranks unless `compute` was called.
        """
        self.compute()
        return classification_report(*self._joined) if len(self._joined[1]) else []

    @property
    def occurring(self) -> tuple[int, int]:
        """After `compute`: how many classes occur, and how many samples are of a class that the model does not have."""
        labels = self._joined[1]
        return len(torch.unique(labels[labels >= 0])), int((labels < 0).sum())

    def sync(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Join the ranks' states; a rank without samples brings empty tensors of the right shapes."""
        if isinstance(self.places, list) and not self.places:
            empty = torch.empty(0, 3, dtype=torch.long, device=self.device)
            self.places.append(empty)
            self.probabilities.append(torch.empty(0, self.classes, device=self.device))
        super().sync(*args, **kwargs)

    def _join(self) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities (N, C), labels (N,) and images (N,) of all ranks, each sample once."""
        if not len(self.places):
            self._joined = self._nothing()
            return self._joined
        places = dim_zero_cat(self.places).cpu()
        _, first = np.unique(places[:, 0].numpy(), return_index=True)
        chosen = torch.from_numpy(first)
        self._joined = dim_zero_cat(self.probabilities).cpu()[chosen], places[chosen, 2], places[chosen, 1]
        return self._joined

    def _nothing(self) -> tuple[Tensor, Tensor, Tensor]:
        none = torch.empty(0, dtype=torch.long)
        return torch.empty(0, self.classes), none, none


def _share(part: Array, whole: Array) -> Array:
    """The quotient; not a number where the whole is nothing."""
    share: Array = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return share


def _mean(values: list[Array], cases: int) -> Array:
    """The mean over classes, (R,), of what is defined."""
    stacked = np.stack(values) if values else np.empty((0, cases))
    defined = np.isfinite(stacked)
    return _share(np.where(defined, stacked, 0.0).sum(axis=0), defined.sum(axis=0))
