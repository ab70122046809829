"""What a data set is made of, before an image is read: rows, each in one split."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

Split = Literal["train", "validation", "test"]


class Record(Protocol):
    """One row of a data set."""

    @property
    def sample_id(self) -> str:
        """The row's name, unique in its split."""
        ...

    @property
    def image(self) -> str:
        """Path of the image, relative to the data set's root."""
        ...

    @property
    def text(self) -> str:
        """The text that evaluation uses."""
        ...

    @property
    def alternative_texts(self) -> tuple[str, ...]:
        """Texts that training may use instead of `text`."""
        ...


RecordT = TypeVar("RecordT", bound=Record)
