"""What a validation split says of confidences: kept batch by batch, and fitted once all of it was seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umd.files import gather_objects
from umd.metrics.temperature import fitted_temperature


class Validated:
    """The logits of a validation split's samples, and whether the names chosen by them are right."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the split."""
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, index: Tensor, logits: Tensor, right: Tensor) -> None:
        """Keep a batch.

        Args:
            index: (B,) int64, the samples' places in the split; a sample counts once.
            logits: (B, A), of which the largest is that of the chosen name.
            right: (B,) bool.
        """
        self._batches.append((index.cpu(), logits.detach().float().cpu(), right.cpu()))

    def temperature(self, probabilities: Callable[[Tensor], Tensor]) -> float:
        """The temperature that fits, the same on every rank; all of them must call this. 1 where nothing was seen.

        Args:
            probabilities: what (N, A) logits give each name.
        """
        batches = [batch for of_rank in gather_objects(self._batches) for batch in of_rank]
        if not batches:
            return 1.0
        index, logits, right = (torch.cat(columns) for columns in zip(*batches, strict=True))
        # In the order of the split: how it was dealt out to ranks and batches does not matter.
        first = torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])
        logits, right = logits[first], right[first]

        def confidence(temperature: float) -> NDArray[np.float64]:
            return probabilities(logits / temperature).amax(1).double().numpy()

        return fitted_temperature(confidence, right.numpy())
