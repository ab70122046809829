"""Images with captions: the record. A data set of captions is an `ImageTextDataModule[CaptionRecord]`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One image with its texts.

    Attributes:
        sample_id: The image's name, unique in its split.
        image: Path of the image, as the data module's `locate` takes it.
        text: The caption.
        alternative_texts: Further texts about the image, for training.
    """

    sample_id: str
    image: str
    text: str
    alternative_texts: tuple[str, ...] = ()
