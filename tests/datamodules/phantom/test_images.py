"""What a study says is what its image shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.phantom.images import render
from datamodules.phantom.studies import draw_studies


def bright_blobs(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Connected regions as arrays of (row, column), by flood fill."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        stack, region = [left.pop()], []
        while stack:
            row, column = stack.pop()
            region.append((row, column))
            for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if near in left:
                    left.remove(near)
                    stack.append(near)
        regions.append(np.array(region))
    return regions


def test_lesions_are_where_and_as_many_as_the_study_says() -> None:
    wrong = []
    for study in draw_studies(96, seed=1):
        change = render(study).astype(int) - render(replace(study, lesions=()))
        small = np.asarray(Image.fromarray(np.clip(change, 0, 255).astype(np.uint8)).resize((64, 64)))
        blobs = bright_blobs(small > 20)
        sides = {"left" if blob[:, 1].mean() < 31.5 else "right" for blob in blobs} or {"neither"}
        wide = all(np.ptp(blob, axis=0).max() >= 4 for blob in blobs)
        if (len(blobs), sides, wide) != (len(study.lesions), {study.side}, True):
            wrong.append(study.attributes)
    assert len(wrong) <= 4, wrong  # a bright lesion beside bright bone is hard to tell by a threshold
