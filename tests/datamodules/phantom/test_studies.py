"""Studies: balanced, and of one split alone."""

from __future__ import annotations

from collections import Counter

import pytest

from datamodules.phantom.studies import draw_splits, draw_studies


def test_even_a_short_draw_is_balanced() -> None:
    studies = draw_studies(288, seed=5)
    for values in zip(*(study.attributes[:3] for study in studies), strict=True):
        assert set(Counter(values).values()) == {96}
    assert Counter(len(study.lesions) for study in studies) == {0: 72, 1: 72, 2: 72, 3: 72}
    assert not any(study.modality == "X-ray" and study.plane == "axial" for study in studies)


def test_splits_share_no_study() -> None:
    splits = draw_splits({"train": 50, "test": 50}, seed=0)
    assert not set(splits["train"]) & set(splits["test"])


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="count=-1"):
        draw_studies(-1, seed=0)
