"""From what a user holds to the arrays that a network reads: exactly what the data modules make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from datamodules.fitting import fit
from datamodules.images import MAX_PIXELS, ImageError, decode, to_rgb
from datamodules.tokens import TextTokenizer
from umd.files import UserError
from umd.inference.network import Inputs

ImageSource: TypeAlias = str | Path | Image.Image | NDArray[Any]
"""An image file (DICOM too), an image of Pillow, or an array; see `to_image`."""


def to_image(source: ImageSource) -> Image.Image:
    """An image of any form as 8-bit RGB, whole.

    Args:
        source: a file, as the data modules read it: BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP or DICOM; or an
            image of Pillow; or an array of (H, W) or (H, W, 3 or 4): uint8, uint16, or float in 0..1.

    Raises:
        UserError: it is no image, is broken, or has too many pixels or none; names the file.
        TypeError: it is none of these.
    """
    if isinstance(source, str | Path):
        try:
            return decode(Path(source).expanduser())
        except ImageError as error:
            raise UserError(f"image '{source}': {error}") from error
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if not isinstance(source, Image.Image):
        raise TypeError(f"an image is a path, an image of Pillow or an array, not {type(source).__name__}")
    if not 0 < source.width * source.height <= MAX_PIXELS:
        raise UserError(f"an image of {source.width} x {source.height} pixels; allowed are 1 to {MAX_PIXELS:,}")
    try:
        return to_rgb(ImageOps.exif_transpose(source))
    except OSError as error:  # Pillow reads a file that it has opened only now
        raise UserError(f"the image cannot be decoded: {error}") from error


def _from_array(array: NDArray[Any]) -> Image.Image:
    grey, colour = array.ndim == 2, array.ndim == 3 and array.shape[2] in (3, 4)
    if not (grey or colour) or array.size == 0:
        raise UserError(f"an array of shape {array.shape} is no image: (H, W), (H, W, 3) or (H, W, 4) is")
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also where one is nan
            raise UserError(f"an array of {array.dtype} must lie in 0..1, not {array.min():g}..{array.max():g}")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8 and not (grey and array.dtype == np.uint16):
        raise UserError(f"an array of {array.dtype} is no image: uint8, float in 0..1, or (H, W) of uint16 is")
    return Image.fromarray(array)


class Preparation:
    """The evaluation transform and the tokenizer of a model, without torch.

    Args:
        tokenizer: its plain state, as checkpoints hold it.
        image_size: pixels along the side of the square image.
        text_length: most tokens of a text, special tokens included.
    """

    def __init__(self, tokenizer: Mapping[str, Any], image_size: int, text_length: int) -> None:
        self.tokenizer = TextTokenizer(tokenizer, text_length)
        self.image_size = image_size
        self.text_length = text_length

    def image(self, source: ImageSource) -> NDArray[np.uint8]:
        """(3, S, S): shorter side to S pixels (bicubic), centre crop."""
        return np.asarray(fit(to_image(source), self.image_size)).transpose(2, 0, 1)

    def inputs(
        self, image: NDArray[np.uint8], texts: Sequence[str], image_index: NDArray[np.int64] | None = None
    ) -> Inputs:
        """Prepared images with B texts.

        Args:
            image: (U, 3, S, S).
            texts: B of them.
            image_index: (B,), which image goes with each text; None: to each its own, or to all the only one.
        """
        tokens = self.tokenizer.arrays(texts)
        if image_index is None and len(image) == 1 < len(texts):
            image_index = np.zeros(len(texts), dtype=np.int64)
        return Inputs(
            image=image,
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            word_ids=tokens["word_ids"],
            image_index=image_index,
        )

    def is_cut(self, text: str) -> bool:
        """Whether a text has more tokens than are read."""
        return self.tokenizer.count(text) > self.text_length

    def words(self, text: str) -> list[str]:
        """The words of a text by their numbers (`Inputs.word_ids`), as they are written there."""
        (encoding,) = self.tokenizer.encode([text])
        numbers = [number for number in encoding.word_ids if number is not None]
        spans = [encoding.word_to_chars(number) or (0, 0) for number in range(1 + max(numbers, default=-1))]
        return [text[start:end].strip() for start, end in spans]
