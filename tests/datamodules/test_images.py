from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules.fitting import fit
from datamodules.image_store import ImageStore
from datamodules.images import ImageError, decode, decode_as_grey_or_rgb, is_inside


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
        ("a\ud800.jpg", False),
    ],
)
def test_is_inside(name: str, inside: bool) -> None:
    assert is_inside(name) is inside


def test_an_image_that_claims_20000_by_20000_pixels_is_refused_unread(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    (tmp_path / "claim.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))))
    with pytest.raises(ImageError, match="400000000 pixels"):
        decode(tmp_path / "claim.png")


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (1, 1), (2, 1)])
@pytest.mark.parametrize("cached", [False, True])
def test_thin_and_tiny_images_become_squares(tmp_path: Path, size: tuple[int, int], cached: bool) -> None:
    Image.new("L", size, 200).save(tmp_path / "thin.png")
    store = ImageStore(224, tmp_path / "cache" if cached else None)
    assert store.check([tmp_path / "thin.png"]) == {}
    for training in (False, True):
        square = store.transform(training=training)(store.load(tmp_path / "thin.png", training=training))
        assert square.shape == (3, 224, 224) and (square == 200).all()


def test_long_images_lose_only_what_the_centre_crop_drops() -> None:
    values = np.random.default_rng(0).integers(0, 256, (8, 200, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    wide = v2.functional.pil_to_tensor(image.resize((800, 32), Image.Resampling.BICUBIC))
    assert v2.functional.pil_to_tensor(fit(image, 32)).equal(wide[:, :, 384:416])
    image = image.transpose(Image.Transpose.TRANSPOSE)
    high = v2.functional.pil_to_tensor(image.resize((32, 800), Image.Resampling.BICUBIC))
    assert v2.functional.pil_to_tensor(fit(image, 32)).equal(high[:, 384:416])


def test_programs_pipes_and_floats_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "figure.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    assert set(ImageStore(16).check([tmp_path / "figure.png", tmp_path / "pipe.png"])) == set(tmp_path.iterdir())
    Image.fromarray(np.array([[np.nan, 255.0], [-np.inf, 0.0]], dtype=np.float32)).save(tmp_path / "float.tiff")
    assert pixels(tmp_path / "float.tiff")[..., 0].tolist() == [[0, 255], [0, 0]]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_whatever_breaks_in_a_file_is_an_image_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image = Image.effect_noise((40, 30), 60)
    broken = 0
    for name in ("a.png", "a.jpg", "a.tiff", "a.gif", "a.bmp", "a.webp", "a.jp2", "a.ppm"):
        image.convert("RGB").save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for place in random.integers(0, min(len(content), 300), 4):
                content[place] = random.integers(256)
            (tmp_path / name).write_bytes(content[: random.integers(20, len(content) + 1)])
            try:
                assert pixels(tmp_path / name).shape[2] == 3
            except ImageError as error:
                broken += bool(str(error)) and str(tmp_path) not in str(error)
    assert broken > 100


@dataclass(frozen=True)
class Held:
    """An image that is held in memory, as one in a table is."""

    content: bytes
    container: str = "memory"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def read(self) -> bytes:
        return self.content


def test_images_that_are_no_files_of_their_own_are_read_as_files_are(tmp_path: Path) -> None:
    Image.effect_noise((400, 200), 50).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    good, cut, text = Held(whole), Held(whole[:-3000]), Held(b"no image")
    assert np.array_equal(np.asarray(decode(good)), pixels(tmp_path / "a.png"))
    for store in (ImageStore(20), ImageStore(20, tmp_path / "cache")):
        bad = store.check([good, cut, text])
        assert set(bad) == {cut, text}
        assert not any("BytesIO" in why for why in bad.values())
    stored, file = (store.load(source, training=False) for source in (good, tmp_path / "a.png"))
    assert isinstance(stored, torch.Tensor) and isinstance(file, torch.Tensor) and stored.equal(file)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2  # the stored one has an entry by its digest


def test_grey_is_one_channel_whatever_a_file_calls_it(tmp_path: Path) -> None:
    grey = Image.effect_noise((60, 40), 50)
    colour = grey.convert("RGB")
    colour.putpixel((59, 39), (1, 2, 3))
    for image, mode in ((grey, "L"), (grey.convert("RGB"), "L"), (grey.convert("1"), "L"), (colour, "RGB")):
        image.save(tmp_path / "a.png")
        decoded, _ = decode_as_grey_or_rgb(tmp_path / "a.png")
        assert decoded.mode == mode
        assert decoded.convert("RGB").tobytes() == image.convert("RGB").tobytes()
        assert fit(decoded, 32).convert("RGB").tobytes() == fit(image.convert("RGB"), 32).tobytes()
