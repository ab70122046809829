"""One-frame DICOM files as 8-bit images, by pydicom (extra `dicom`)."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pydicom import FileDataset

SUFFIXES = (".dcm", ".dicom")

_DEFER_BYTES = 2**16
"""Larger elements, the pixels among them, are read when they are asked for: after their size has been checked."""


def is_dicom(file: Path | BytesIO) -> bool:
    """Whether a file, or what would be its content, is named or marked as DICOM."""
    if isinstance(file, BytesIO):
        return bytes(file.getbuffer()[128:132]) == b"DICM"
    with file.open("rb") as opened:
        return file.suffix.lower() in SUFFIXES or opened.read(132)[128:] == b"DICM"


def read_dicom(file: Path | BytesIO, most_pixels: int) -> Image.Image:
    """The image of a DICOM file as a viewer shows it: "L", or "RGB" where it has colours.

    Grey values go through the modality table or rescale slope, then through the first window of the file (or its
    table of values of interest, which is preferred), without either from the smallest to the largest value to
    0..255. A window of no width counts as none. MONOCHROME1 is inverted. Colours are taken as they are.

    Args:
        file: The file, or what would be its content.
        most_pixels: Images of more pixels are refused before they are decoded.

    Raises:
        ValueError: pydicom is not installed or lacks a decoder (says what to install), the file has several frames,
            too many pixels or none, or its colours are in no known form.
    """
    try:
        import pydicom
    except ImportError:
        raise ValueError("DICOM files need pydicom: pip install pydicom") from None
    data = pydicom.dcmread(file, defer_size=_DEFER_BYTES if isinstance(file, Path) else None)
    if "Rows" not in data or not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("a DICOM file without an image")
    if data.Rows * data.Columns > most_pixels:
        raise ValueError(f"{data.Columns} x {data.Rows} pixels are more than {most_pixels:,}")
    if (frames := int(data.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"a DICOM file with {frames} frames: export the one that is meant to a file of its own")
    _check_decoder(data)
    stored = data.pixel_array
    kind = str(data.PhotometricInterpretation)
    if kind.startswith("MONOCHROME"):
        shares = _grey(stored, data)
        shares = 1 - shares if kind == "MONOCHROME1" else shares
    elif kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        table = apply_color_lut(stored, data)[..., :3]
        shares = table / np.iinfo(table.dtype).max
    elif kind.startswith(("RGB", "YBR")):  # pydicom has made RGB of both
        shares = stored / (2 ** int(data.BitsStored) - 1)
    else:
        raise ValueError(f"a DICOM file of colour kind {kind}, which is not known here")
    return Image.fromarray(np.round(255 * shares.clip(0, 1)).astype(np.uint8))


def window(values: NDArray[Any], center: float, width: float, function: str = "LINEAR") -> NDArray[np.float64]:
    """Values through a window, as shares of full brightness, 0 to 1 (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: Any shape, after rescaling.
        center: Middle of the window, in the values' unit.
        width: At least 1 for "LINEAR", above 0 for the others.
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID".

    Raises:
        ValueError: The function is another one.
    """
    x = values.astype(np.float64)
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (x - center) / width)))
    if function == "LINEAR_EXACT":
        return ((x - center) / width + 0.5).clip(0, 1)
    if function != "LINEAR":
        raise ValueError(f"a DICOM window of function {function}, which is not known here")
    if width == 1:
        return np.asarray((x > center - 0.5).astype(np.float64))
    return ((x - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _grey(stored: NDArray[Any], data: FileDataset) -> NDArray[np.float64]:
    """Stored values as shares of full brightness."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, data)
    if data.get("VOILUTSequence"):
        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        return np.asarray(apply_voi(values, data) / (2**bits - 1))
    function = str(data.get("VOILUTFunction") or "LINEAR")
    center, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        return window(values, center, width, function)
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / ((high - low) or 1.0), dtype=np.float64)


def _first(value: Any) -> float | None:  # noqa: ANN401 - pydicom gives a number, several, or none
    several = value if isinstance(value, list) or hasattr(value, "__getitem__") else [value]
    return float(several[0]) if len(several) and several[0] is not None else None


def _check_decoder(data: FileDataset) -> None:
    """Says what is lacking to decode the pixels.

    Raises:
        ValueError: pydicom cannot decode this transfer syntax as it is installed.
    """
    from pydicom.pixels import get_decoder  # type: ignore[attr-defined]

    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(f"a DICOM file compressed as {syntax.name}, which pydicom does not decode") from None
    if not decoder.is_available:
        lacking = "; ".join(decoder.missing_dependencies)
        raise ValueError(f"a DICOM file compressed as {syntax.name}; to decode it install one of: {lacking}")
