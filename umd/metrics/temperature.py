"""One number that logits are divided by, so that confidences can be believed (Guo et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from umd.protocols import FEW

RANGE: Final = (0.1, 10.0)
"""Where the temperature is looked for."""

_LEAST: Final = 1e-12
"""A probability of exactly 0 or 1 would have no finite loss where it is wrong."""

Vector = NDArray[np.float64]


def log_loss(confidence: Vector, right: NDArray[np.bool_]) -> float:
    """The mean of -log of what was said of what came true: that an answer is right, or wrong.

    Args:
        confidence: (N,) in 0..1.
        right: (N,).
    """
    said = np.where(right, confidence, 1 - confidence)
    return float(-np.log(np.maximum(said, _LEAST)).mean())


def fitted_temperature(confidence: Callable[[float], Vector], right: NDArray[np.bool_]) -> float:
    """The temperature with the least log loss of the chosen answers' confidences, as forecasts of being right.

    That is the loss of what is shown: with one sigmoid an answer and with a softmax alike the confidence is that of the
    chosen answer, and it is measured by whether the answer is right (`umd.metrics.calibration`). The loss that a head
    of sigmoids was trained with would be decided by the many answers that nobody gives.

    Args:
        confidence: the (N,) confidences at a temperature.
        right: (N,) whether the chosen answers are right.

    Returns:
        A temperature in `RANGE`; 1 where too little is known: fewer than `FEW` answers, or all right, or all wrong.
    """
    if len(right) < FEW or right.all() or not right.any():
        return 1.0
    from scipy.optimize import minimize_scalar  # not above: it takes a while, and only trainings need it

    def loss(logarithm: float) -> float:
        return log_loss(confidence(float(np.exp(logarithm))), right)

    return float(np.exp(minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-4}).x))
