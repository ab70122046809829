"""Radiographs of the phantom: everything in the beam's way adds up to one attenuation. Lateral views face left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from datamodules.phantom.canvas import Canvas, Pixels


def _head_frontal(c: Canvas) -> Pixels:
    total = 0.30 * c.dome(0, -0.20, 0.66, 0.72) + 0.34 * c.blob(0, -0.20, 0.66, 0.72)
    total += 0.45 * c.ring(0, -0.20, 0.61, 0.67, 0.06)
    total += 0.30 * c.blob(0, 0.50, 0.42, 0.40, power=4) + 0.30 * c.blob(0, 0.9, 0.30, 0.30, power=4)
    total += 0.40 * c.ring(0, 0.38, 0.42, 0.46, 0.06) * c.below(0.45, 0.2)
    for side in (-1, 1):
        total += 0.30 * c.ring(side * 0.26, 0.10, 0.16, 0.14, 0.04)
        total -= 0.22 * c.blob(side * 0.26, 0.10, 0.13, 0.11, edge=0.08)
        total -= 0.16 * c.blob(side * 0.22, 0.38, 0.12, 0.11, edge=0.1)
    total -= 0.28 * c.blob(0, 0.30, 0.07, 0.14, edge=0.06)
    teeth = 0.5 + 0.5 * np.cos(55 * c.x)
    total += 0.40 * c.blob(0, 0.62, 0.22, 0.085, power=4) * (0.4 + 0.6 * teeth)
    return np.asarray(total, dtype=np.float32)


def _head_lateral(c: Canvas) -> Pixels:
    total = 0.26 * c.dome(0.06, -0.24, 0.80, 0.64) + 0.30 * c.blob(0.06, -0.24, 0.80, 0.64)
    total += 0.42 * c.ring(0.06, -0.24, 0.75, 0.59, 0.05)
    total += 0.24 * c.blob(-0.30, 0.36, 0.36, 0.46, turn=0.1, power=4, edge=0.14)
    total += 0.22 * c.blob(0.2, 0.8, 0.34, 0.6, power=4, edge=0.1)
    total += 0.40 * c.blob(-0.02, 0.30, 0.34, 0.05, turn=0.2, edge=0.08)
    total += 0.36 * c.blob(-0.32, 0.74, 0.30, 0.06, turn=-0.25, edge=0.06)
    total += 0.32 * c.blob(-0.02, 0.52, 0.07, 0.20, turn=-0.2, edge=0.08)
    teeth = 0.5 + 0.5 * np.cos(60 * c.x)
    total += 0.36 * c.blob(-0.44, 0.56, 0.16, 0.07, power=4) * (0.4 + 0.6 * teeth)
    total -= 0.22 * c.blob(-0.42, 0.26, 0.13, 0.10, edge=0.08)
    for number in range(3):
        total += 0.34 * c.blob(0.26 + 0.02 * number, 0.56 + 0.19 * number, 0.11, 0.07, power=4, edge=0.05)
    return np.asarray(total, dtype=np.float32)


def _chest_frontal(c: Canvas) -> Pixels:
    total = 0.55 * c.dome(0, 0.10, 0.84, 1.5, power=4) + 0.30 * c.dome(0, -0.50, 1.05, 0.36, power=4)
    total += 0.3 * c.dome(0, -0.9, 0.28, 0.5, power=4)
    lungs = np.zeros_like(c.x)
    for side in (-1, 1):
        lung = c.blob(side * 0.37, -0.10, 0.29, 0.70, turn=-side * 0.10, edge=0.08)
        dome = 0.44 + 0.02 * side + 0.9 * (c.x - side * 0.38) ** 2
        lungs = np.maximum(lungs, lung * (1 - c.below(dome, 0.06)))
    total -= 0.36 * lungs * (1 - 0.14 * np.clip(c.noise(0.07), -1, 2.5))
    for number in range(8):
        for side in (-1, 1):
            centre = -0.62 + 0.155 * number
            rib = c.ring(side * 0.33, centre + 0.14, 0.40, 0.19, 0.022) * (1 - c.below(centre + 0.13, 0.16))
            total += 0.10 * rib * (0.3 + 0.7 * lungs)
    total += 0.30 * c.blob(0.11, 0.20, 0.22, 0.36, turn=-0.75, edge=0.10)
    total += 0.30 * c.blob(0, -0.10, 0.13, 0.62, power=4, edge=0.10)
    total += 0.35 * c.below(0.48 + 0.5 * c.x * c.x, 0.1) * c.blob(0, 0.6, 0.78, 0.8, power=4)
    total += _column(c, x=0.0, top=-0.95, step=0.16, width=0.09, gain=0.10)
    for side in (-1, 1):
        total += 0.22 * c.blob(side * 0.38, -0.72, 0.34, 0.035, turn=-side * 0.22, edge=0.03)
    return np.asarray(total, dtype=np.float32)


def _chest_lateral(c: Canvas) -> Pixels:
    total = 0.50 * c.dome(0, 0.2, 0.72, 1.3, power=4) + 0.20 * c.blob(0.1, -0.75, 0.55, 0.35, power=4, edge=0.2)
    lung = c.blob(0.02, -0.08, 0.46, 0.70, edge=0.1) * (1 - c.below(0.44 + 0.7 * (c.x + 0.08) ** 2, 0.06))
    total -= 0.36 * lung * (1 - 0.16 * np.clip(c.noise(0.07), -1, 2.5))
    total += 0.34 * c.blob(-0.20, 0.22, 0.23, 0.26, turn=-0.4, edge=0.08)
    total += 0.30 * c.below(0.48 + 0.5 * (c.x + 0.08) ** 2, 0.1) * c.blob(0, 0.6, 0.66, 0.8, power=4)
    total += 0.3 * c.blob(-0.55, -0.1, 0.03, 0.42, turn=0.08, edge=0.04)
    for number in range(7):
        total += 0.07 * c.ring(-0.15, -0.95 + 0.2 * number, 0.62, 0.42, 0.025) * c.below(-0.8 + 0.2 * number, 0.2)
    total += _column(c, x=0.47, top=-0.9, step=0.19, width=0.10, gain=0.30)
    return np.asarray(total, dtype=np.float32)


def _abdomen_frontal(c: Canvas) -> Pixels:
    total = 0.62 * c.dome(0, 0, 0.86, 1.5, power=4)
    for side in (-1, 1):
        total += 0.12 * c.blob(side * 0.36, 0.02, 0.13, 0.24, turn=side * 0.25, edge=0.1)
        wing = (side * 0.46, 0.64, 0.23, 0.36, side * 0.55)
        total += 0.24 * c.blob(*wing, edge=0.08) + 0.30 * c.ring(*wing[:4], 0.035, wing[4]) * (1 - c.below(0.60, 0.5))
        for number in range(3):
            rib = c.ring(side * 0.36, -0.75 + 0.22 * number, 0.46, 0.24, 0.025)
            total += 0.16 * rib * (1 - c.below(-0.80 + 0.22 * number, 0.2))
    total += 0.10 * c.blob(-0.36, -0.55, 0.40, 0.34, turn=0.3, edge=0.2)
    gas = np.clip(c.noise(0.16) - 1.0, 0, 1) * c.blob(0, 0.25, 0.55, 0.45, edge=0.3)
    total -= 0.30 * gas + 0.26 * c.blob(0.30, -0.80, 0.18, 0.10, turn=-0.2, edge=0.08)
    total += 0.26 * c.blob(0, 0.62, 0.17, 0.24, edge=0.08) - 0.22 * c.blob(0, 1.0, 0.30, 0.22, edge=0.1)
    total += _column(c, x=0.0, top=-0.92, step=0.21, width=0.12, gain=0.36)
    return np.asarray(total, dtype=np.float32)


def _abdomen_lateral(c: Canvas) -> Pixels:
    total = 0.62 * c.dome(0.02, 0, 0.76, 1.5, power=4)
    total += 0.10 * c.blob(-0.15, -0.5, 0.36, 0.36, edge=0.2)
    gas = np.clip(c.noise(0.16) - 0.9, 0, 1) * c.blob(-0.15, 0.15, 0.36, 0.5, edge=0.3)
    total -= 0.30 * gas + 0.24 * c.blob(-0.2, -0.86, 0.16, 0.09, edge=0.08)
    total += 0.30 * c.blob(0.12, 0.80, 0.34, 0.16, turn=0.3, edge=0.1)
    total += _column(c, x=0.46, top=-0.92, step=0.23, width=0.13, gain=0.42)
    return np.asarray(total, dtype=np.float32)


def _column(c: Canvas, x: float, top: float, step: float, width: float, gain: float) -> Pixels:
    """A spine in the beam: a soft bar with the end plates of its vertebrae."""
    phase = np.cos(2 * np.pi * (c.y - np.float32(top)) / np.float32(step))
    bar = c.blob(x, 0.0, width, 1.2, power=4, edge=0.04)
    return np.asarray(gain * bar * (0.72 + 0.28 * np.clip(2 * phase, -1, 1)), dtype=np.float32)


RADIOGRAPHS: dict[tuple[str, str], Callable[[Canvas], Pixels]] = {
    ("head", "coronal"): _head_frontal,
    ("head", "sagittal"): _head_lateral,
    ("chest", "coronal"): _chest_frontal,
    ("chest", "sagittal"): _chest_lateral,
    ("abdomen", "coronal"): _abdomen_frontal,
    ("abdomen", "sagittal"): _abdomen_lateral,
}
