"""DICOM files, written here by pydicom and compared with plain arithmetic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from datamodules.image_store import ImageStore
from datamodules.images import ImageError, decode

VALUES = np.arange(-1000, 1000, 100, dtype=np.int16).reshape(4, 5)


def write(path: Path, stored: np.ndarray, **elements: Any) -> Path:  # noqa: ANN401 - whatever DICOM holds
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * stored.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    red, green, blue = np.asarray(image).transpose(2, 0, 1)
    assert (red == green).all() and (green == blue).all()
    return np.array(red)


def by_hand(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2, one value after the other."""
    shown = []
    for x in values.flatten().tolist():
        if x <= center - 0.5 - (width - 1) / 2:
            shown.append(0.0)
        elif x > center - 0.5 + (width - 1) / 2:
            shown.append(255.0)
        else:
            shown.append(((x - (center - 0.5)) / (width - 1) + 0.5) * 255)
    return np.array(shown).round().astype(int).reshape(values.shape)


def test_the_files_window_after_its_rescaling(tmp_path: Path) -> None:
    stored = ((VALUES + 1024) // 2).astype(np.uint16)
    elements = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [40, 300], "WindowWidth": [400, 1500]}
    hounsfield = stored.astype(int) * 2 - 1024
    expected = by_hand(hounsfield, 40, 400)
    assert 0 < expected.min(initial=255, where=expected > 0) < expected.max() == 255
    assert (grey(write(tmp_path / "ct.dcm", stored, **elements)) == expected).all()
    inverted = write(tmp_path / "inverted.dcm", stored, PhotometricInterpretation="MONOCHROME1", **elements)
    assert np.abs(grey(inverted).astype(int) - (255 - expected)).max() <= 1  # halves may round the other way
    (tmp_path / "ct.dcm").rename(tmp_path / "named_like_a.jpg")
    assert (grey(tmp_path / "named_like_a.jpg") == expected).all()


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 40, "WindowWidth": 0}, {"WindowCenter": 40}])
def test_without_a_window_the_values_span_all_greys(tmp_path: Path, window: dict[str, float]) -> None:
    expected = np.round((VALUES + 1000.0) / 1900 * 255)
    assert (grey(write(tmp_path / "a.dcm", VALUES, **window)) == expected).all()
    assert (grey(write(tmp_path / "flat.dcm", np.full((3, 3), 7, np.uint8))) == 0).all()


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        ("LINEAR_EXACT", lambda x: ((x - 50) / 300 + 0.5).clip(0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 50) / 300))),
    ],
)
def test_other_window_functions(tmp_path: Path, function: str, shown: Any) -> None:  # noqa: ANN401
    path = write(tmp_path / "a.dcm", VALUES, WindowCenter=50, WindowWidth=300, VOILUTFunction=function)
    assert (grey(path) == np.round(255 * shown(VALUES.astype(float)))).all()


def test_a_table_of_values_of_interest_comes_before_the_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.LUTData = np.array([0, 65535, 32768, 100], np.uint16).tobytes()
    stored = np.array([[0, 1], [2, 9]], np.uint8)
    path = write(tmp_path / "a.dcm", stored, VOILUTSequence=Sequence([table]), WindowCenter=1, WindowWidth=2)
    assert grey(path).tolist() == [[0, 255], [128, 0]]  # what is beyond the table has its last value


def test_colours_stay(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert (np.asarray(decode(write(tmp_path / "a.dcm", stored))) == stored).all()
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour, data in (("Red", [0, 65535]), ("Green", [65535, 0]), ("Blue", [0, 0]))
        for part, value in (("Descriptor", [2, 0, 16]), ("Data", np.array(data, np.uint16).tobytes()))
    }
    path = write(tmp_path / "b.dcm", np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR", **palette)
    assert np.asarray(decode(path)).tolist() == [[[0, 255, 0], [255, 0, 0]]]


def test_jpeg_inside_needs_nothing_more(tmp_path: Path) -> None:
    Image.effect_noise((16, 16), 60).save(tmp_path / "a.jpg")
    stored = np.asarray(Image.open(tmp_path / "a.jpg"))
    pixels = encapsulate([(tmp_path / "a.jpg").read_bytes()])
    path = write(tmp_path / "a.dcm", stored, syntax=JPEGBaseline8Bit, PixelData=pixels)
    low, high = int(stored.min()), int(stored.max())
    assert (grey(path) == np.round((stored.astype(float) - low) / (high - low) * 255)).all()


def test_what_cannot_be_shown_is_told(tmp_path: Path) -> None:
    frames = write(tmp_path / "frames.dcm", VALUES, NumberOfFrames=3, PixelData=VALUES.tobytes() * 3)
    large = write(tmp_path / "large.dcm", VALUES, Rows=20000, Columns=20000)
    pixels = encapsulate([b"\xff\xd8junk\xff\xd9"])
    packed = write(tmp_path / "packed.dcm", VALUES, syntax=JPEGLosslessSV1, PixelData=pixels)
    cut = write(tmp_path / "cut.dcm", VALUES)
    cut.write_bytes(cut.read_bytes()[:-7])
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    named = (tmp_path / "a.png").rename(tmp_path / "no_dicom.dcm")
    for path, told in {
        frames: "3 frames: export the one",
        large: "20000 x 20000 pixels are more than",
        packed: "JPEG Lossless.*to decode it install one of: .*pylibjpeg",
        cut: "pixel data",
        named: "DICM",
    }.items():
        with pytest.raises(ImageError, match=told):
            decode(path)
    assert set(ImageStore(16).check([frames, packed, cut])) == {frames, packed, cut}


def test_without_pydicom_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm", VALUES)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match="pip install pydicom"):
        decode(path)


def test_one_that_is_stored_in_a_table_is_shown_alike(tmp_path: Path) -> None:
    stored = np.arange(400 * 400, dtype=np.uint16).reshape(400, 400)
    path = write(tmp_path / "a.dcm", stored)

    class Held:
        digest = container = "held"

        def read(self) -> bytes:
            return path.read_bytes()

    assert np.array_equal(np.asarray(decode(Held())), np.asarray(decode(path)))
