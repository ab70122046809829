"""Rows of one image that are asked for together: one view of it, in a batch once; and the order that brings them so."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import VQARAD
from datamodules.loading import ImageByImageSampler, image_by_image
from tests.datamodules.samples import picture, write_vqa
from umd.batch import VQABatch
from umd.files import UserError

IMAGES = [*"aaaaaaabbbbbccd"]


def smooth(root: Path, images: int = 6) -> str:
    """Pictures of which no two crops are alike, with two training questions each."""
    write_vqa(root, images)
    for number in range(images):
        picture(root / "images" / f"{number}.png", number)
    return str(root)


@pytest.mark.parametrize("most", [1, 2, 4, 100])
def test_every_row_comes_once_and_images_in_as_few_groups_as_can_be(most: int) -> None:
    orders = [image_by_image(IMAGES, most, np.random.default_rng(seed)) for seed in range(20)]
    assert all(sorted(order) == list(range(len(IMAGES))) for order in orders)
    assert len({tuple(order) for order in orders}) == 20
    groups = sum(ceil(count / most) for count in Counter(IMAGES).values())
    runs = [1 + sum(IMAGES[one] != IMAGES[other] for one, other in pairwise(order)) for order in orders]
    assert max(runs) <= groups
    assert most > 7 or max(runs) > len(set(IMAGES))


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_share_the_rows_of_an_epoch(tmp_path: Path, ranks: int) -> None:
    data = VQARAD(smooth(tmp_path / "data"), validation_fraction=0)
    dataset = data._dataset("train", training=True)

    def places(rank: int, epoch: int) -> list[int]:
        sampler = ImageByImageSampler(dataset, rows_per_image=2, num_replicas=ranks, rank=rank, seed=0)
        sampler.set_epoch(epoch)
        return [key - epoch * len(dataset) for key in sampler]

    for epoch in (0, 3):
        shares = [places(rank, epoch) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1
        together = [place for share in shares for place in share]
        assert set(together) == set(range(len(dataset))) and len(together) - len(dataset) < ranks
    assert places(0, 0) != places(0, 1)


def batches(root: str, **arguments: Any) -> list[VQABatch]:  # noqa: ANN401 - those of the data module
    return list(VQARAD(root, validation_fraction=0, image_size=32, seed=5, **arguments).train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_questions_of_one_image_see_one_view_of_it(tmp_path: Path, workers: int) -> None:
    root = smooth(tmp_path / "data")
    drawn = batches(root, batch_size=4, questions_per_image=2, num_workers=workers)
    for batch in drawn:
        assert batch.image_index is not None and batch.image.shape[0] == 2 and len(batch) == 4
        assert batch.per_pair(batch.image).shape == (4, 3, 32, 32)
        pairs = set(zip(batch.image_names, batch.image_index.tolist(), strict=True))
        assert len(pairs) == len({name for name, _ in pairs}) == 2
    names = [name for batch in drawn for name in batch.sample_ids]
    assert len(names) == len(set(names)) == 12
    for one, other in zip(drawn, batches(root, batch_size=4, questions_per_image=2), strict=True):
        assert one.sample_ids == other.sample_ids and one.image.equal(other.image)


def test_crops_stay_a_questions_own_unless_asked_for(tmp_path: Path) -> None:
    root = smooth(tmp_path / "data", images=1)
    (batch,) = batches(root, batch_size=2)
    assert batch.image_index is None and not batch.image[0].equal(batch.image[1])
    (shared,) = batches(root, batch_size=2, random_resized_crop=False)
    assert shared.image.shape[0] == 1 and shared.image_index is not None and shared.image_index.tolist() == [0, 0]


def test_an_image_of_a_test_batch_is_read_once_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = VQARAD(smooth(tmp_path / "data", images=3), validation_fraction=0, image_size=32, batch_size=6)
    data.predict_split = "train"
    data.setup("predict")
    dataset = data._dataset("train", training=False)
    wanted = torch.stack([dataset[place].image for place in range(6)])
    read: list[object] = []

    load = data.images.load

    def watched(path: Path, *, training: bool) -> object:
        read.append(path)
        return load(path, training=training)

    monkeypatch.setattr(data.images, "load", watched)
    (batch,) = data.predict_dataloader()
    assert batch.image.shape[0] == len(read) == 3
    assert batch.per_pair(batch.image).equal(wanted)


def test_a_number_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="questions_per_image must be at least 1, not 0"):
        VQARAD(str(tmp_path), questions_per_image=0)


def test_augmented_views_are_so_many_of_an_image_and_drawn_once(tmp_path: Path) -> None:
    def views(seed: int = 0) -> dict[str, set[bytes]]:
        data = VQARAD(root, validation_fraction=0, image_size=32, augmented_views=3, seed=seed)
        data.setup("fit")
        dataset = data._dataset("train", training=True)
        seen: dict[str, set[bytes]] = {}
        for key in range(20 * len(dataset)):  # 20 passes, of two rows an image
            item = dataset[key]
            assert item.image.dtype == torch.uint8 and item.image.shape == (3, 32, 32)
            seen.setdefault(item.record.image, set()).add(item.image.numpy().tobytes())
        return seen

    root = smooth(tmp_path / "data", images=2)
    first = views()
    assert [len(of_one) for of_one in first.values()] == [3, 3]
    assert views() == first
    assert all(first[name].isdisjoint(of_one) for name, of_one in views(seed=1).items())
    data = VQARAD(root, validation_fraction=0, image_size=32, augmented_views=3)
    plain = VQARAD(root, validation_fraction=0, image_size=32, random_resized_crop=False)
    assert data._dataset("test", training=False)[0].image.equal(plain._dataset("test", training=False)[0].image)
