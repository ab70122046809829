"""What a phantom image shows: frozen descriptions of studies, drawn from a shuffled deck.

Nothing here is anatomy of a patient. Left and right are always the plain sides of the *image*, not the patient's
sides (a radiologist reads an axial slice mirrored), in every plane; sagittal images face the image's left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np

from umd.files import UserError

Organ = Literal["head", "chest", "abdomen"]
Modality = Literal["CT", "MRI", "X-ray"]
Plane = Literal["axial", "coronal", "sagittal"]
Side = Literal["left", "right", "neither"]

ORGANS: tuple[Organ, ...] = ("head", "chest", "abdomen")
MODALITIES: tuple[Modality, ...] = ("CT", "MRI", "X-ray")
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
SIDES: tuple[Side, ...] = ("left", "right", "neither")
MAX_LESIONS = 3

# Every marginal of the deck is uniform. A radiograph has no axial view, so slices are axial twice as often.
_VIEWS: tuple[tuple[Modality, Plane], ...] = (
    *(("CT", plane) for plane in ("axial", "axial", "coronal", "sagittal")),
    *(("MRI", plane) for plane in ("axial", "axial", "coronal", "sagittal")),
    *(("X-ray", plane) for plane in ("coronal", "coronal", "sagittal", "sagittal")),
)
_FINDINGS: tuple[tuple[Side, int], ...] = (
    ("neither", 0),
    ("neither", 0),
    *(("left", number) for number in range(1, MAX_LESIONS + 1)),
    *(("right", number) for number in range(1, MAX_LESIONS + 1)),
)

# Where lesion centres may lie on the right half (centre x, centre y, half width, half height), -1..1, y down.
_REGIONS: dict[tuple[Organ, Plane], tuple[float, float, float, float]] = {
    ("head", "axial"): (0.30, -0.02, 0.12, 0.44),
    ("head", "coronal"): (0.29, -0.28, 0.11, 0.30),
    ("head", "sagittal"): (0.36, -0.30, 0.18, 0.26),
    ("chest", "axial"): (0.46, -0.02, 0.16, 0.29),
    ("chest", "coronal"): (0.40, -0.16, 0.12, 0.36),
    ("chest", "sagittal"): (0.24, -0.18, 0.05, 0.42),
    ("abdomen", "axial"): (0.46, -0.06, 0.18, 0.32),
    ("abdomen", "coronal"): (0.40, -0.20, 0.14, 0.42),
    ("abdomen", "sagittal"): (0.22, -0.16, 0.05, 0.46),
}
# Radius by number of lesions: three must fit on one side, and none is smaller than 6 pixels across at 64 x 64.
_RADII = {1: (0.125, 0.155), 2: (0.115, 0.145), 3: (0.105, 0.125)}
_LEAST_GAP = 0.08
_DRAWS = 128


@dataclass(frozen=True, slots=True)
class Lesion:
    """A round lesion, brighter than the tissue around it.

    Attributes:
        x: Centre, -1 at the image's left edge, 1 at its right edge (before the study's own small shift and turn).
        y: Centre, -1 at the top, 1 at the bottom.
        radius: In the same units; 0.1 is 6.4 pixels of a 128-pixel image.
    """

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Study:
    """All that is known about one phantom image.

    Attributes:
        organ: Part of the body.
        modality: Imaging technique; decides contrast and texture.
        plane: Viewing plane. An X-ray is coronal (frontal) or sagittal (lateral), never axial.
        lesions: None to three lesions, all on one side of the image.
        seed: Seed of everything else in the picture: body shape, texture, noise.
    """

    organ: Organ
    modality: Modality
    plane: Plane
    lesions: tuple[Lesion, ...]
    seed: int

    @property
    def side(self) -> Side:
        """The side of the image that holds the lesions; "neither" without lesions."""
        if not self.lesions:
            return "neither"
        return "left" if self.lesions[0].x < 0 else "right"

    @property
    def attributes(self) -> tuple[Organ, Modality, Plane, Side, int]:
        """Everything that a question may ask for."""
        return self.organ, self.modality, self.plane, self.side, len(self.lesions)

    @property
    def methods(self) -> tuple[str, str, str, str]:
        """Method names as MELINDA gives them: fine and coarse `i_meth` (technique), fine and coarse `p_meth` (part)."""
        technique, part = self.modality.lower(), self.organ
        return f"{self.plane} {technique}", f"{part} {self._finding}", technique, part

    @property
    def _finding(self) -> str:
        return "with lesion" if self.lesions else "without lesion"


def draw_studies(count: int, seed: int, stream: int = 0) -> list[Study]:
    """Draws `count` studies; the same arguments give the same studies.

    They come from a deck of all combinations, shuffled anew each time it is used up, so even few studies are balanced.

    Args:
        count: Number of studies, at least 0.
        seed: Seed of the draw, at least 0.
        stream: Number of an independent stream of the same seed (one a split).

    Raises:
        UserError: `count` or `seed` is negative.
    """
    if count < 0 or seed < 0:
        raise UserError(f"count and seed must be at least 0, got count={count}, seed={seed}")
    rng = np.random.default_rng([seed, stream])
    deck = list(product(ORGANS, _VIEWS, _FINDINGS))
    studies: list[Study] = []
    while len(studies) < count:
        for card in rng.permutation(len(deck))[: count - len(studies)]:
            organ, (modality, plane), (side, number) = deck[card]
            studies.append(
                Study(
                    organ=organ,
                    modality=modality,
                    plane=plane,
                    lesions=_place_lesions(_REGIONS[organ, plane], side, number, rng),
                    seed=int(rng.integers(2**62)),
                )
            )
    return studies


def draw_splits(sizes: Mapping[str, int], seed: int) -> dict[str, list[Study]]:
    """Draws one list of studies a split, from independent streams: no two splits share an image.

    Args:
        sizes: Number of studies by name of the split; the order counts.
        seed: Seed of the draw.
    """
    return {name: draw_studies(size, seed, stream) for stream, (name, size) in enumerate(sizes.items())}


def _place_lesions(
    region: tuple[float, float, float, float], side: Side, number: int, rng: np.random.Generator
) -> tuple[Lesion, ...]:
    """Places lesions that do not touch: the first that do not of many draws."""
    if number == 0:
        return ()
    centre_x, centre_y, half_width, half_height = region
    sign = -1.0 if side == "left" else 1.0
    while True:
        draws = (_DRAWS, number)
        away, angle = np.sqrt(rng.uniform(0, 1, draws)), rng.uniform(0, 2 * np.pi, draws)
        x = sign * (centre_x + half_width * away * np.cos(angle))
        y = centre_y + half_height * away * np.sin(angle)
        radius = rng.uniform(*_RADII[number], draws)
        apart = np.ones(_DRAWS, dtype=bool)
        for one, other in combinations(range(number), 2):
            distance = np.hypot(x[:, one] - x[:, other], y[:, one] - y[:, other])
            apart &= distance - radius[:, one] - radius[:, other] > _LEAST_GAP
        if apart.any():
            first = int(apart.argmax())
            found = zip(x[first].tolist(), y[first].tolist(), radius[first].tolist(), strict=True)
            return tuple(Lesion(*values) for values in found)
