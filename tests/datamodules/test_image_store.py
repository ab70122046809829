"""Images through a cache and in draft mode, against Pillow and torchvision on the files themselves."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datamodules.image_store import ImageStore
from datamodules.images import ImageError, decode
from tests.datamodules.test_dicom import VALUES, write
from umd.files import UserError

BICUBIC = v2.InterpolationMode.BICUBIC


def square(store: ImageStore, path: Path, training: bool = False) -> Tensor:
    return store.transform(training=training)(store.load(path, training=training))


def plainly(path: Path, size: int) -> Tensor:
    """The square by torchvision alone, all three channels of it."""
    transform = v2.Compose([v2.Resize(size, BICUBIC), v2.CenterCrop(size), v2.PILToTensor()])
    pixels: Tensor = transform(decode(path))
    return pixels


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def some_images(shared_data: Path) -> list[Path]:
    folders = {"vqa_rad/images": 45, "slake/imgs": 150, "medpix/images": 150}
    return [path for name, step in folders.items() for path in sorted((shared_data / name).rglob("*.jpg"))[::step]]


def test_squares_of_real_images_are_the_same_with_and_without_a_cache(shared_data: Path, tmp_path: Path) -> None:
    images = some_images(shared_data)
    assert len({path.parts[-3] for path in images}) >= 3 and len(images) > 20
    write(tmp_path / "a.dcm", VALUES)
    decode(images[0]).save(tmp_path / "a.png")
    Image.effect_noise((300, 200), 90).convert("RGB").rotate(20, fillcolor=(9, 80, 200)).save(tmp_path / "colour.png")
    images += [tmp_path / name for name in ("a.dcm", "a.png", "colour.png")]
    plain, cached = ImageStore(96), ImageStore(96, tmp_path / "cache")
    assert cached.check(images) == {}
    for path in images:
        assert square(plain, path).equal(plainly(path, 96))
        assert square(cached, path).equal(plainly(path, 96))
    assert len(entries(tmp_path / "cache")) == len(images)


def test_random_crops_without_a_cache_are_torchvisions(shared_data: Path) -> None:
    crop = v2.RandomResizedCrop(96, scale=(0.9, 1.0), interpolation=BICUBIC)
    for path in some_images(shared_data)[::4]:
        torch.manual_seed(1)
        expected = v2.functional.pil_to_tensor(crop(decode(path)))
        torch.manual_seed(1)
        assert square(ImageStore(96), path, training=True).equal(expected)


def test_images_to_crop_are_small_in_a_cache_and_look_the_same(shared_data: Path, tmp_path: Path) -> None:
    store = ImageStore(96, tmp_path / "cache")
    for path in some_images(shared_data):
        copy = store.load(path, training=True)
        assert isinstance(copy, Tensor) and min(copy.shape[1:]) == store.shorter_side
        assert square(store, path, training=True).shape == (3, 96, 96)
        seen = v2.functional.resize(copy, [96, 96], BICUBIC).float()
        expected = v2.functional.pil_to_tensor(decode(path).resize((96, 96), Image.Resampling.BICUBIC))
        assert (seen - expected).abs().mean() < 2  # of 255


def test_draft_mode_differs_by_a_few_grey_levels_and_not_where_nothing_is_gained(
    shared_data: Path, tmp_path: Path
) -> None:
    for size in (64, 128):
        store = ImageStore(size, jpeg_draft=True)
        differences = torch.stack(
            [(square(store, path).float() - plainly(path, size)).abs().mean() for path in some_images(shared_data)]
        )
        assert 0.1 < differences.mean() < 1.5 and differences.max() < 4  # grey levels of 255
    path = some_images(shared_data)[0]
    large = min(decode(path).size) // 2
    decode(path).save(tmp_path / "a.png")
    assert square(ImageStore(large, jpeg_draft=True), path).equal(plainly(path, large))
    assert square(ImageStore(32, jpeg_draft=True), tmp_path / "a.png").equal(plainly(tmp_path / "a.png", 32))


def test_draft_mode_keeps_places_and_turns(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 405, dtype=np.uint8)[None].repeat(301, 0)  # no multiple of a block
    for orientation in (1, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95, exif=exif)
        found = square(ImageStore(32, jpeg_draft=True), tmp_path / "a.jpg").float()
        assert (found - plainly(tmp_path / "a.jpg", 32)).abs().max() < 2


def test_a_cache_is_read_repaired_and_follows_changes_without_growing(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.png", tmp_path / "cache"
    Image.new("RGB", (400, 200), "red").save(path)
    store = ImageStore(20, cache)
    assert store.check([path]) == {}
    (entry,) = entries(cache)
    np.save(entry, np.full((20, 20, 1), 7, dtype=np.uint8))
    assert (square(store, path) == 7).all()  # it is the entry that is read
    entry.write_bytes(entry.read_bytes()[:100])
    assert square(store, path)[:, 0, 0].tolist() == [255, 0, 0]
    assert np.load(entry).shape == (20, 20, 3)
    begun = entry.with_name(f"{entry.name.partition('.')[0]}.killed.part")
    begun.touch()
    os.utime(begun, (time.time() - 1e5,) * 2)
    Image.new("RGB", (401, 201), "blue").save(path)
    assert square(store, path)[:, 0, 0].tolist() == [0, 0, 255]
    assert len(entries(cache)) == 1 and entries(cache) != [entry]
    assert square(ImageStore(24, cache), path).shape == (3, 24, 24)  # another image size shares nothing
    square(ImageStore(20, cache, jpeg_draft=True), path)
    assert len(entries(cache)) == 3


def test_a_broken_image_is_told_alike_with_and_without_a_cache(tmp_path: Path) -> None:
    cut, text = tmp_path / "cut.jpg", tmp_path / "text.jpg"
    Image.effect_noise((200, 200), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:-2000])
    text.write_text("no image")
    images = [cut, text, tmp_path / "absent.png"]
    plain, *others = (
        ImageStore(16),
        ImageStore(16, tmp_path / "cache"),
        ImageStore(16, jpeg_draft=True),
    )
    expected = plain.check(images)
    assert set(expected) == set(images)
    for store in others:
        for training in (False, True):
            assert store.check(images, training=training) == expected
            with pytest.raises(ImageError, match=r"cut\.jpg: .*\(it could be read when the run began\)"):
                store.load(cut, training=training)
    assert not (tmp_path / "cache").exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_the_disk_refuses_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    store = ImageStore(64, tmp_path / "cache")
    with files_of_at_most(1000), pytest.raises(UserError, match=r"cannot write '.*cache.*': File too large"):
        store.check([tmp_path / "a.png"])
    assert entries(tmp_path / "cache") == []


def _digest(folder: Path) -> list[int]:
    store = ImageStore(24, folder / "cache")
    return [int(square(store, folder / f"{number % 8}.png").long().sum()) for number in range(64)]


def test_processes_that_fill_one_cache_at_once_read_the_same(tmp_path: Path) -> None:
    for number in range(8):
        Image.effect_noise((90, 70), 60).save(tmp_path / f"{number}.png")
    expected = [int(plainly(tmp_path / f"{number % 8}.png", 24).long().sum()) for number in range(64)]
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        for found in pool.map(_digest, [tmp_path] * 6):
            assert found == expected
    assert [path.suffix for path in entries(tmp_path / "cache")] == [".npy"] * 8
