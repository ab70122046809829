"""CT and MRI slices of the phantom: layers of tissue, each painted over those before it. Sagittal slices face left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from datamodules.phantom.canvas import Canvas, Pixels

Layers = Iterator[tuple[str, Pixels]]


def _head_axial(c: Canvas) -> Layers:
    yield "fat", c.blob(0, 0, 0.70, 0.85)
    yield "skin", c.blob(0, 0, 0.66, 0.81)
    yield "bone", c.blob(0, 0, 0.645, 0.795)
    brain = c.blob(0, 0, 0.565, 0.715)
    yield "fluid", brain
    folds = c.noise(0.11)
    depth = c.radius(0, 0, 0.565, 0.715)
    yield "grey", brain * np.clip(1.5 + 0.7 * folds - 9.0 * np.clip(depth - 0.82, 0, 1), 0, 1)
    yield "white", np.clip((0.72 - depth + 0.09 * folds) * 9, 0, 1)
    yield "fluid", 0.8 * c.blob(0, 0, 0.012, 0.68, edge=0.02) * (depth > 0.42)
    for side in (-1, 1):
        yield "fluid", c.blob(side * 0.09, -0.19, 0.055, 0.15, turn=-side * 0.35)
        yield "fluid", c.blob(side * 0.13, 0.22, 0.055, 0.16, turn=side * 0.45)
        yield "grey", c.blob(side * 0.13, 0.02, 0.07, 0.12, turn=side * 0.2)


def _head_coronal(c: Canvas) -> Layers:
    yield "fat", np.maximum(c.blob(0, -0.2, 0.68, 0.72), c.blob(0, 0.55, 0.46, 0.62, power=4))
    yield "muscle", np.maximum(c.blob(0, -0.2, 0.63, 0.67), c.blob(0, 0.55, 0.41, 0.60, power=4))
    yield "bone", c.blob(0, -0.22, 0.625, 0.655)
    brain = c.blob(0, -0.24, 0.55, 0.575)
    yield "fluid", brain
    folds, depth = c.noise(0.11), c.radius(0, -0.24, 0.55, 0.575)
    yield "grey", brain * np.clip(1.5 + 0.7 * folds - 9.0 * np.clip(depth - 0.8, 0, 1), 0, 1)
    yield "white", np.clip((0.68 - depth + 0.1 * folds) * 9, 0, 1) * (1 - c.below(0.06, 0.15))
    yield "fluid", 0.8 * c.blob(0, -0.55, 0.012, 0.27, edge=0.02)
    yield "white", c.blob(0, 0.16, 0.09, 0.24)
    yield "bone", c.blob(0, 0.40, 0.36, 0.09, power=4)
    for side in (-1, 1):
        yield "fluid", c.blob(side * 0.085, -0.24, 0.04, 0.12, turn=side * 0.6)
        yield "bone", c.blob(side * 0.34, 0.66, 0.045, 0.24, turn=side * 0.1)
        yield "gas", c.blob(side * 0.15, 0.53, 0.09, 0.12, power=4)
    yield "gas", c.blob(0, 0.50, 0.035, 0.10)
    yield "muscle", c.blob(0, 0.76, 0.24, 0.10)
    yield "gas", c.blob(0, 0.92, 0.05, 0.10)


def _head_sagittal(c: Canvas) -> Layers:
    skull = (0.05, -0.26, 0.80, 0.64)
    outline = np.maximum(c.blob(*skull), c.blob(-0.30, 0.32, 0.40, 0.50, turn=0.15))
    outline = np.maximum(outline, c.blob(0.22, 0.68, 0.34, 0.55, power=4))
    outline = np.maximum(outline, c.blob(-0.72, 0.18, 0.12, 0.12, turn=0.5))
    yield "fat", outline
    yield "muscle", np.clip(outline * 1.4 - 0.4, 0, 1) * c.below(0.10, 0.2)
    yield "bone", c.blob(0.05, -0.26, 0.755, 0.595)
    x, y, rx, ry = 0.05, -0.27, 0.675, 0.515
    brain, depth, folds = c.blob(x, y, rx, ry), c.radius(x, y, rx, ry), c.noise(0.10)
    yield "fluid", brain
    yield "grey", brain * np.clip(1.5 + 0.7 * folds - 8.0 * np.clip(depth - 0.8, 0, 1), 0, 1)
    yield "white", c.ring(0.02, -0.14, 0.32, 0.22, 0.05) * (1 - c.below(-0.16, 0.1))
    yield "fluid", c.blob(0.02, -0.20, 0.20, 0.07, edge=0.05)
    yield "fluid", c.blob(0.40, 0.14, 0.235, 0.175)
    leaves = 0.5 + 0.5 * np.sin(48 * c.radius(0.26, 0.10, 1, 1))
    yield "grey", c.blob(0.40, 0.14, 0.21, 0.155) * (0.45 + 0.55 * leaves).astype(np.float32)
    yield "white", c.blob(0.10, 0.18, 0.075, 0.32, turn=-0.2)
    yield "gas", c.blob(-0.34, 0.24, 0.20, 0.10, power=4)
    yield "gas", c.blob(-0.04, 0.60, 0.045, 0.36, turn=-0.1)
    yield "bone", c.blob(-0.38, 0.42, 0.24, 0.035)
    yield "bone", c.blob(-0.52, 0.68, 0.07, 0.11, turn=0.3)
    for number in range(3):
        yield "bone", c.blob(0.23 + 0.01 * number, 0.50 + 0.20 * number, 0.10, 0.085, power=4)
        yield "marrow", c.blob(0.23 + 0.01 * number, 0.50 + 0.20 * number, 0.07, 0.055, power=4)


def _chest_axial(c: Canvas) -> Layers:
    yield "fat", c.blob(0, 0.02, 0.93, 0.66)
    yield "muscle", c.blob(0, 0.02, 0.86, 0.59)
    for angle in np.linspace(0.35, 2.8, 6):
        for side in (-1, 1):
            x, y = side * 0.80 * np.sin(angle), 0.02 + 0.53 * np.cos(angle)
            yield "bone", c.blob(x, y, 0.035, 0.12, turn=-side * (np.pi / 2 - angle) * 0.8)
    vessels = np.clip(c.noise(0.06) - 2.1, 0, 1)
    for side in (-1, 1):
        lung = c.blob(side * 0.44, 0.0, 0.345, 0.485, turn=-side * 0.12)
        yield "lung", lung
        yield "vessel", 0.7 * lung * vessels
    yield "muscle", c.blob(0, 0.05, 0.14, 0.50, power=4)
    yield "fat", c.blob(0, -0.34, 0.10, 0.10)
    yield "heart", c.blob(0.07, -0.08, 0.25, 0.19, turn=0.5)
    yield "fat", 0.4 * c.ring(0.07, -0.08, 0.25, 0.19, 0.02, turn=0.5)
    yield "vessel", c.blob(0.12, 0.26, 0.075, 0.075)
    yield "gas", c.blob(-0.03, 0.19, 0.045, 0.04)
    yield "bone", c.blob(0, -0.50, 0.14, 0.035)
    yield "bone", c.blob(0, 0.40, 0.12, 0.10)
    yield "bone", c.blob(0, 0.55, 0.03, 0.10)
    yield "fluid", c.blob(0, 0.495, 0.04, 0.03)


def _chest_coronal(c: Canvas) -> Layers:
    trunk = np.maximum(c.blob(0, 0.30, 0.80, 1.15, power=4), c.blob(0, -0.45, 0.97, 0.30, power=4))
    neck = c.blob(0, -0.85, 0.24, 0.40, power=4)
    yield "fat", np.maximum(trunk, neck)
    yield "muscle", np.maximum(c.blob(0, 0.30, 0.72, 1.08, power=4), c.blob(0, -0.45, 0.90, 0.22, power=4))
    for number in range(6):
        for side in (-1, 1):
            yield "bone", c.blob(side * (0.60 + 0.018 * number), -0.50 + 0.21 * number, 0.032, 0.055)
    vessels = np.clip(c.noise(0.07) - 2.0, 0, 1)
    for side in (-1, 1):
        lung = c.blob(side * 0.37, -0.08, 0.265, 0.66, turn=-side * 0.10)
        lung = lung * (1 - c.below(0.42 + 0.9 * (c.x - side * 0.40) ** 2, 0.05))
        yield "lung", lung
        yield "vessel", 0.7 * lung * vessels
        yield "bone", c.blob(side * 0.40, -0.78, 0.30, 0.035, turn=-side * 0.2)
    yield "liver", c.blob(-0.26, 0.83, 0.44, 0.36) * c.below(0.45)
    yield "spleen", c.blob(0.46, 0.75, 0.16, 0.22) * c.below(0.5)
    yield "muscle", c.blob(0, -0.25, 0.11, 0.55, power=4)
    yield "heart", c.blob(0.09, 0.20, 0.25, 0.30, turn=-0.7)
    yield "vessel", c.blob(0.07, -0.20, 0.09, 0.17)
    yield "gas", c.blob(-0.01, -0.62, 0.045, 0.36)


def _chest_sagittal(c: Canvas) -> Layers:
    yield "fat", c.blob(0.02, 0.1, 0.70, 1.15, power=4)
    yield "muscle", c.blob(0.04, 0.1, 0.61, 1.08, power=4)
    lung = c.blob(0.0, -0.08, 0.43, 0.68) * (1 - c.below(0.40 + 0.7 * (c.x + 0.05) ** 2, 0.05))
    yield "lung", lung
    yield "vessel", 0.7 * lung * np.clip(c.noise(0.07) - 2.0, 0, 1)
    yield "liver", c.blob(-0.02, 0.85, 0.46, 0.44) * c.below(0.44)
    yield "heart", c.blob(-0.20, 0.24, 0.19, 0.25, turn=0.5)
    yield "vessel", c.ring(-0.02, 0.0, 0.15, 0.36, 0.05) * (1 - c.below(0.0, 0.3)) * 0.8
    yield "bone", c.blob(-0.50, -0.15, 0.03, 0.34, turn=0.08)
    yield from _spine(c, x=0.47, curve=0.07, top=-0.82, step=0.205, count=9)


def _abdomen_axial(c: Canvas) -> Layers:
    yield "fat", c.blob(0, 0, 0.94, 0.72)
    yield "muscle", c.blob(0, 0, 0.85, 0.63)
    yield "mesentery", c.blob(0, -0.02, 0.79, 0.56)
    yield "liver", c.blob(-0.42, -0.06, 0.38, 0.44, turn=0.25)
    yield "liver", c.blob(-0.10, -0.26, 0.32, 0.20)
    yield "spleen", c.blob(0.52, -0.02, 0.25, 0.42, turn=-0.25)
    yield "bowel", c.blob(0.22, -0.26, 0.24, 0.20)
    yield "bowel", c.blob(0.0, -0.02, 0.16, 0.10)
    for side in (-1, 1):
        yield "kidney", c.blob(side * 0.34, 0.33, 0.12, 0.14, turn=side * 0.5)
        yield "fat", c.blob(side * 0.29, 0.32, 0.05, 0.05)
        yield "muscle", c.blob(side * 0.22, 0.50, 0.20, 0.11)
    yield "vessel", c.blob(0.06, 0.16, 0.065, 0.065)
    yield "vessel", c.blob(-0.09, 0.16, 0.075, 0.055)
    yield "bone", c.blob(0, 0.34, 0.135, 0.11)
    yield "marrow", c.blob(0, 0.335, 0.10, 0.08)
    yield "bone", c.blob(0, 0.53, 0.03, 0.11)
    yield "fluid", c.blob(0, 0.455, 0.045, 0.03)


def _abdomen_coronal(c: Canvas) -> Layers:
    yield "fat", c.blob(0, 0, 0.82, 1.25, power=4)
    yield "muscle", c.blob(0, 0, 0.71, 1.2, power=4)
    yield "mesentery", c.blob(0, 0.02, 0.64, 1.1, power=4)
    for side in (-1, 1):
        yield "lung", c.blob(side * 0.36, -1.08, 0.27, 0.32)
        yield "muscle", c.blob(side * 0.17, 0.30, 0.09, 0.55, turn=-side * 0.18)
    yield "liver", c.blob(-0.32, -0.44, 0.34, 0.42, turn=0.35)
    yield "liver", c.blob(-0.02, -0.58, 0.24, 0.20)
    yield "spleen", c.blob(0.43, -0.46, 0.21, 0.36, turn=-0.2)
    for side in (-1, 1):
        yield "kidney", c.blob(side * 0.37, 0.08, 0.13, 0.20, turn=side * 0.2)
        yield "bone", c.blob(side * 0.50, 0.66, 0.10, 0.27, turn=-side * 0.45)
        yield "marrow", c.blob(side * 0.50, 0.66, 0.06, 0.22, turn=-side * 0.45)
        yield "bowel", c.blob(side * 0.27, 0.56, 0.12, 0.09, turn=0.5)
    for number in range(6):
        yield "bone", c.blob(0, -0.62 + 0.22 * number, 0.115, 0.085, power=4)
        yield "marrow", c.blob(0, -0.62 + 0.22 * number, 0.085, 0.055, power=4)
        yield "disc", c.blob(0, -0.51 + 0.22 * number, 0.10, 0.025, power=4)
    yield "fluid", c.blob(0, 0.84, 0.19, 0.11)


def _abdomen_sagittal(c: Canvas) -> Layers:
    yield "fat", c.blob(0.02, 0.0, 0.76, 1.25, power=4)
    yield "muscle", c.blob(0.07, 0.0, 0.66, 1.2, power=4)
    yield "mesentery", c.blob(-0.06, 0.02, 0.47, 1.1, power=4)
    yield "lung", c.blob(0.02, -1.05, 0.36, 0.32)
    yield "liver", c.blob(-0.12, -0.48, 0.36, 0.36, turn=-0.2)
    folds = c.noise(0.14)
    yield "bowel", c.blob(-0.10, 0.14, 0.34, 0.34) * np.clip(0.9 + 0.9 * folds, 0, 1)
    yield "kidney", c.blob(0.25, 0.02, 0.10, 0.17, turn=0.15)
    yield "fluid", c.blob(-0.18, 0.72, 0.19, 0.15)
    yield "bone", c.blob(-0.38, 0.86, 0.07, 0.09)
    yield from _spine(c, x=0.54, curve=-0.08, top=-0.88, step=0.235, count=8)


def _spine(c: Canvas, x: float, curve: float, top: float, step: float, count: int) -> Layers:
    """A column of vertebrae with discs between them and the spinal canal behind."""
    heights = [top + step * number for number in range(count)]
    yield "fluid", c.blob(x + 0.15 + curve * 0.5, 0.0, 0.03, 0.95, power=4)
    for y in heights:
        bent = x + curve * float(np.cos(1.6 * y))
        yield "disc", c.blob(bent, y + step / 2, 0.085, step * 0.2, power=4)
        yield "bone", c.blob(bent, y, 0.10, step * 0.38, power=4)
        yield "marrow", c.blob(bent, y, 0.07, step * 0.27, power=4)
        yield "bone", c.blob(bent + 0.23, y + 0.04, 0.065, step * 0.16, turn=0.4)


SLICES: dict[tuple[str, str], Callable[[Canvas], Layers]] = {
    ("head", "axial"): _head_axial,
    ("head", "coronal"): _head_coronal,
    ("head", "sagittal"): _head_sagittal,
    ("chest", "axial"): _chest_axial,
    ("chest", "coronal"): _chest_coronal,
    ("chest", "sagittal"): _chest_sagittal,
    ("abdomen", "axial"): _abdomen_axial,
    ("abdomen", "coronal"): _abdomen_coronal,
    ("abdomen", "sagittal"): _abdomen_sagittal,
}
