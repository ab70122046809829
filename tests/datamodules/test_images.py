from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images import ImageError, ImageStore, decode, is_inside


def pixels(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_deep_grey_is_scaled_from_its_bit_depth_not_clipped(tmp_path: Path, bits: int) -> None:
    levels = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    expected = np.arange(256).reshape(16, 16, 1)
    assert np.abs(pixels(tmp_path / "deep.png").astype(int) - expected).max() <= 1


def test_transparent_pixels_are_white_in_rgba_and_palette(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.save(tmp_path / "rgba.png")
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    for name in ("rgba.png", "palette.png"):
        assert pixels(tmp_path / name).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_cmyk_and_grey_become_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    red, green, blue = pixels(tmp_path / "cmyk.jpg").mean((0, 1))
    assert red > 200 > 60 > max(green, blue)
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    assert (pixels(tmp_path / "grey.png") == 77).all()


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows of the file are columns of the picture
    Image.new("L", (30, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert decode(tmp_path / "turned.jpg").size == (10, 30)


def test_unusable_files_are_reported_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, cut, text, large = (tmp_path / name for name in ("good.png", "cut.jpg", "text.jpg", "large.png"))
    Image.new("L", (50, 40)).save(good)
    Image.effect_noise((200, 200), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:-2000])
    text.write_text("no image")
    Image.new("L", (60, 60)).save(large)
    monkeypatch.setattr("datamodules.images.MAX_PIXELS", 40_000)
    assert set(ImageStore(16).check([good, cut, text, tmp_path / "absent.png"])) == {
        cut,
        text,
        tmp_path / "absent.png",
    }
    monkeypatch.setattr("datamodules.images.MAX_PIXELS", 3000)
    with pytest.raises(ImageError, match="60 x 60 pixels are more than 3,000"):
        decode(large)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("images/a.jpg", True),
        ("images/a..b.jpg", True),
        ("../a.jpg", False),
        ("images/../../a.jpg", False),
        ("images\\..\\..\\a.jpg", False),
        ("/etc/passwd", False),
        ("", False),
        ("a\0.jpg", False),
    ],
)
def test_is_inside(name: str, inside: bool) -> None:
    assert is_inside(name) is inside


def test_cache_serves_small_copies_rebuilds_broken_ones_and_notices_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (400, 200), "red").save(path)
    store = ImageStore(20, tmp_path / "cache")
    assert store.check([path]) == {}
    (entry,) = (tmp_path / "cache").rglob("*.npy")
    assert store.load(path).size == (48, 24)
    marked = np.zeros((24, 48), dtype=np.uint8)
    np.save(entry, marked)
    assert store.load(path).getextrema() == ((0, 0),) * 3  # it is the copy that is read
    entry.write_bytes(entry.read_bytes()[:100])
    assert store.load(path).getpixel((0, 0)) == (255, 0, 0)
    assert np.load(entry).shape == (24, 48, 3)
    Image.new("RGB", (401, 201), "blue").save(path)
    assert store.load(path).getpixel((0, 0)) == (0, 0, 255)
    assert not list((tmp_path / "cache").rglob("*.part"))
