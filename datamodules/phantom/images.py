"""From a study to pixels: body outline, contrast of the modality, lesions, texture and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.phantom.canvas import Canvas, Pixels
from datamodules.phantom.radiographs import RADIOGRAPHS
from datamodules.phantom.slices import SLICES
from datamodules.phantom.studies import Lesion, Modality, Study

SIZE = 128

# Grey value of each tissue, 0..1: a soft-tissue window for CT, a T1-like sequence for MRI.
_CONTRAST: dict[str, dict[str, float]] = {
    "CT": {
        "skin": 0.36, "fat": 0.17, "muscle": 0.42, "bone": 1.0, "marrow": 0.78, "grey": 0.44, "white": 0.38,
        "fluid": 0.13, "lung": 0.04, "vessel": 0.58, "liver": 0.52, "spleen": 0.50, "kidney": 0.66, "bowel": 0.38,
        "gas": 0.0, "disc": 0.46, "heart": 0.56, "mesentery": 0.24,
    },
    "MRI": {
        "skin": 0.55, "fat": 0.92, "muscle": 0.30, "bone": 0.03, "marrow": 0.66, "grey": 0.36, "white": 0.52,
        "fluid": 0.08, "lung": 0.05, "vessel": 0.07, "liver": 0.46, "spleen": 0.34, "kidney": 0.42, "bowel": 0.33,
        "gas": 0.02, "disc": 0.2, "heart": 0.38, "mesentery": 0.56,
    },
}  # fmt: skip
# Lesions are the brightest thing in the picture, brighter than bone or fat: small models then learn to see them.
_BRIGHTEST_TISSUE = 0.72
_LESION_GREY = 1.0


def render(study: Study, size: int = SIZE) -> NDArray[np.uint8]:
    """Draws a study.

    Args:
        study: What to show.
        size: Height and width in pixels.

    Returns:
        (size, size) uint8, grey.
    """
    rng = np.random.default_rng(study.seed)
    canvas = _canvas(size, rng)
    image = _slice(study, canvas) if study.modality != "X-ray" else _projection(study, canvas)
    image = image * np.float32(_BRIGHTEST_TISSUE)
    if study.lesions:
        own = np.random.default_rng([study.seed, 1])  # without lesions the rest would look the same
        ragged = Canvas(canvas.x, canvas.y, own).noise(0.12)
        for lesion in study.lesions:
            image = _add_lesion(image, lesion, study.modality, canvas, ragged)
    image = _acquire(image, study.modality, canvas)
    return np.round(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def _canvas(size: int, rng: np.random.Generator) -> Canvas:
    """Pixel coordinates, slightly shifted, turned, scaled and bent: every body is another."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    x, y = np.meshgrid(axis, axis)
    angle = rng.uniform(-0.06, 0.06)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x_scale, y_scale = rng.uniform(0.98, 1.08, 2)
    x_shift, y_shift = rng.uniform(-0.03, 0.03, 2)
    canvas = Canvas(x=x, y=y, rng=rng)
    bend_x, bend_y = (0.022 * canvas.noise(0.35) for _ in range(2))
    turned_x = cosine * x - sine * y
    turned_y = sine * x + cosine * y
    return Canvas(
        x=np.float32(x_scale) * turned_x + bend_x - np.float32(x_shift),
        y=np.float32(y_scale) * turned_y + bend_y - np.float32(y_shift),
        rng=rng,
    )


def _slice(study: Study, canvas: Canvas) -> Pixels:
    contrast = _CONTRAST[study.modality]
    image = np.zeros_like(canvas.x)
    for tissue, mask in SLICES[study.organ, study.plane](canvas):
        grey = np.float32(contrast[tissue] * canvas.rng.uniform(0.95, 1.05))
        image += (grey - image) * mask
    return image


def _projection(study: Study, canvas: Canvas) -> Pixels:
    """Film grey of the summed attenuation."""
    attenuation = RADIOGRAPHS[study.organ, study.plane](canvas)
    return (1.0 - np.exp(-1.6 * np.clip(attenuation, 0.0, None))).astype(np.float32)


def _add_lesion(image: Pixels, lesion: Lesion, modality: Modality, canvas: Canvas, ragged: Pixels) -> Pixels:
    """Paints a bright blob with a ragged edge and a thin dark rim."""
    grey = np.float32(_LESION_GREY)
    distance = canvas.radius(lesion.x, lesion.y, lesion.radius, lesion.radius) * (1.0 + 0.07 * ragged)
    rim = np.exp(-(((distance - 1.3) / 0.35) ** 2))
    image = image * (1.0 - np.float32(0.12 if modality == "X-ray" else 0.25) * rim)
    soft = np.float32(0.55 if modality == "X-ray" else 0.4)
    mask = np.clip((1.05 - distance) / soft + 0.5, 0.0, 1.0)
    return image + (grey * (1.0 - 0.05 * ragged) - image) * mask


def _acquire(image: Pixels, modality: Modality, canvas: Canvas) -> Pixels:
    """Adds what the machine adds: noise, and for MRI an uneven coil and rectified noise."""
    if modality == "CT":
        return image + 0.028 * canvas.noise(0.02) * (0.35 + image)
    if modality == "MRI":
        uneven = 1.0 + 0.16 * canvas.noise(0.9)
        real, imaginary = (0.022 * canvas.noise(0.03) for _ in range(2))
        return np.hypot(image * np.clip(uneven, 0.65, 1.4) + real, imaginary)
    return image + 0.012 * canvas.noise(0.03) + 0.02 * canvas.noise(0.3)
