"""The drawing board of the phantom images: soft-edged ellipses and smooth noise on pixel coordinates.

Coordinates run from -1 to 1, x to the right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""(H, W), float32."""
Power = Literal[2, 4]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Coordinates of the pixels and the study's own randomness.

    Attributes:
        x: (H, W) x coordinate of each pixel.
        y: (H, W) y coordinate of each pixel.
        rng: Source of every random number of the picture.
    """

    x: Pixels
    y: Pixels
    rng: np.random.Generator

    def noise(self, scale: float) -> Pixels:
        """Smooth noise with mean 0, standard deviation 1 and structures of about `scale` (image width: 2)."""
        size = self.x.shape[0]
        spectrum = np.fft.rfft2(self.rng.standard_normal((size, size), dtype=np.float32))
        field = np.fft.irfft2(spectrum * _low_pass(size, scale), s=(size, size))
        scaled: Pixels = (field / field.std()).astype(np.float32)
        return scaled

    def radius(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0, power: Power = 2) -> Pixels:
        """(H, W) distance from (x, y) in units of a superellipse's half axes: 1 on its outline."""
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        if turn:
            cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        dx, dy = dx * np.float32(1.0 / rx), dy * np.float32(1.0 / ry)
        dx, dy = dx * dx, dy * dy
        distance: Pixels = np.sqrt(dx + dy) if power == 2 else np.sqrt(np.sqrt(dx * dx + dy * dy))
        return distance

    def blob(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0, power: Power = 2,
             edge: float = 0.03) -> Pixels:  # fmt: skip
        """(H, W) 1 inside the superellipse, 0 outside, with a soft edge of width `edge`."""
        inside = 1.0 - self.radius(x, y, rx, ry, turn, power)
        mask: Pixels = np.clip(inside * np.float32(min(rx, ry) / edge) + 0.5, 0.0, 1.0)
        return mask

    def dome(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0, power: Power = 2) -> Pixels:
        """(H, W) thickness of an ellipsoid seen along its third axis: 1 at the centre, 0 at the outline."""
        radius = self.radius(x, y, rx, ry, turn, power)
        thickness: Pixels = np.sqrt(np.clip(1.0 - radius * radius, 0.0, 1.0))
        return thickness

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, turn: float = 0.0) -> Pixels:
        """(H, W) soft outline of an ellipse."""
        away = (self.radius(x, y, rx, ry, turn) - 1.0) * np.float32(min(rx, ry) / width)
        outline: Pixels = np.exp(-away * away)
        return outline

    def below(self, line: Pixels | float, edge: float = 0.04) -> Pixels:
        """(H, W) 1 below the height `line`, 0 above it, with a soft edge."""
        mask: Pixels = np.clip((self.y - line) / np.float32(edge) + 0.5, 0.0, 1.0)
        return mask


@lru_cache
def _low_pass(size: int, scale: float) -> Pixels:
    """Gaussian filter in the frequency domain, without the mean."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    width = scale * size / 4.0
    keep = np.exp(-2.0 * (np.pi * width) ** 2 * (rows**2 + columns**2))
    keep[0, 0] = 0.0
    low_pass: Pixels = keep.astype(np.float32)
    return low_pass
