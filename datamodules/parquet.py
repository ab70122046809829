"""Parquet files, by pyarrow (extra `hub`): their rows within limits, whatever they hold, and the images inside them.

Images stay where they are: each is known by its place and its digest, and read when it is asked for. A file is read a
few rows at a time, so that memory does not grow with its size.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from datamodules.files import MOST_BYTES, check_columns, in_asked_case
from datamodules.images import ImageError
from umd.files import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

MOST_ROWS = 10_000_000
"""Files of more rows are refused: a few kilobytes can claim billions of them."""

TEXTS_AT_A_TIME, IMAGES_AT_A_TIME = 1024, 8


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image inside a Parquet file (see `datamodules.images.StoredImage`).

    Attributes:
        file: The Parquet file.
        column: Its column of images.
        group: The row group.
        row: The row in this group.
        digest: SHA-256 of the image's bytes.
        file_name: What the image's file was called, without its folders; "" where the table does not say.
    """

    file: Path
    column: str
    group: int
    row: int
    digest: str
    file_name: str

    @property
    def container(self) -> tuple[Path, int]:
        """The row group, which is read from its beginning."""
        return self.file, self.group

    def read(self) -> bytes:
        """The image's bytes, as a file of its own would hold them.

        Raises:
            ImageError: They are not there any more, or are others now.
        """
        content = _reader.content(self)
        if content is None or hashlib.sha256(content).hexdigest() != self.digest:
            raise ImageError("the file has changed")
        return content

    def __str__(self) -> str:
        return f"{self.file}, row group {self.group}, row {self.row + 1}"


def read_parquet(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), image_column: str = "image"
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file; of these columns alone, whose names may stand there in another case.

    In the column of images a row has an `EmbeddedImage`, or the path that stands there, or None.

    Args:
        path: The file.
        columns: What it must hold.
        optional: What is read where it is there.
        image_column: The column of images: paths, bytes, or a struct of bytes and path.

    Raises:
        UserError: pyarrow is not installed; the file is no Parquet file, lacks a column or holds one twice, has images
            or values of another type, too many rows or too much text; names the file.
    """
    there = column_names(path)
    names = in_asked_case(there, (*columns, *optional))
    check_columns(path, names, columns, optional)
    chosen = {name: there[names.index(name)] for name in dict.fromkeys((*columns, *optional)) if name in names}
    with _told(path):
        # As a dictionary, a text that repeats is held once, however often a file says that it does.
        file = _open(path, [column for name, column in chosen.items() if name != image_column])
        if file.metadata.num_rows > MOST_ROWS:
            raise UserError(f"{path} has {file.metadata.num_rows:,} rows; more than {MOST_ROWS:,} are not read")
        embedded = image_column in chosen and _holds_images(path, chosen[image_column], file.schema_arrow)
        texts = {name: column for name, column in chosen.items() if not (embedded and name == image_column)}
        _check_values(path, file.schema_arrow, list(texts.values()))
        _check_size(path, file, list(texts.values()))
        length = 0
        for group in range(file.num_row_groups):
            images: list[EmbeddedImage | str | None] = (
                [
                    _image(cell.as_py(), path, chosen[image_column], group, row)
                    for row, cell in _cells(file, chosen[image_column], group)
                ]
                if embedded
                else []
            )
            for place, row in enumerate(_texts(file, texts, group)):
                length += sum(map(_length, row.values()))
                if length > MOST_BYTES:
                    raise UserError(f"{path} holds more than {MOST_BYTES:,} bytes of text: is it the right file?")
                yield row | {image_column: images[place]} if embedded else row


def column_names(path: Path) -> list[str]:
    """The names of a Parquet file's columns.

    Raises:
        UserError: pyarrow is not installed, or the file is no Parquet file; names it.
    """
    with _told(path):
        return list(_open(path).schema_arrow.names)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Makes what pyarrow says of a file a `UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        import pyarrow as pa

        if not isinstance(error, pa.ArrowException | OSError | UnicodeDecodeError):
            raise
        raise UserError(f"{path} cannot be read as a Parquet file: {error}") from error


def _open(path: Path, texts: Sequence[str] = ()) -> ParquetFile:
    """The file, of which nothing but its end is read yet; texts in these columns become dictionaries."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow: pip install -e '.[hub]'") from None
    if not texts:
        return ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    with ParquetFile(path) as file:
        leaves = [file.schema.column(place) for place in range(len(file.schema))]
    # A list of texts has the texts one level below: its dictionary is asked for by their path.
    words = [
        leaf.path for leaf in leaves if leaf.path.partition(".")[0] in texts and leaf.physical_type == "BYTE_ARRAY"
    ]
    return ParquetFile(path, read_dictionary=words, buffer_size=2**20, pre_buffer=False)


def _holds_images(path: Path, column: str, schema: pa.Schema) -> bool:
    """Whether a column holds images, else the paths of images.

    Raises:
        UserError: Neither; says what it holds.
    """
    import pyarrow as pa

    def is_bytes(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_bytes(kind):
        return True
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        if len(fields) == kind.num_fields and "bytes" in fields and is_bytes(fields["bytes"]):
            return True
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return False
    raise UserError(
        f"{path}: column '{column}' holds {str(kind)[:200]}; an image is its path, or its bytes, or a struct of bytes "
        "and path"
    )


def _check_values(path: Path, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Refuses columns of values that no cell of another table holds, such as structs.

    Raises:
        UserError: There is one; says what it holds.
    """
    import pyarrow as pa

    for column in columns:
        kind = schema.field(column).type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_nested(kind) and not pa.types.is_dictionary(kind):
            raise UserError(
                f"{path}: column '{column}' holds {str(kind)[:200]}; a cell is a text, a number, or a list of them"
            )


def _check_size(path: Path, file: ParquetFile, texts: Sequence[str]) -> None:
    """Refuses more text than is read of other tables; said by the file itself, before anything is unpacked.

    Raises:
        UserError: It is too much.
    """
    parts = [
        file.metadata.row_group(group).column(place)
        for group in range(file.num_row_groups)
        for place in range(file.metadata.num_columns)
    ]
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.partition(".")[0] in texts)
    if size > MOST_BYTES:
        raise UserError(f"{path} holds {size:,} bytes of text; more than {MOST_BYTES:,} are not read")
    values = max((part.num_values for part in parts if part.path_in_schema.partition(".")[0] in texts), default=0)
    if values > MOST_ROWS:  # of lists; rows are counted before
        raise UserError(f"{path} holds {values:,} values in lists; more than {MOST_ROWS:,} are not read")


def _texts(file: ParquetFile, columns: Mapping[str, str], group: int) -> Iterator[dict[str, Any]]:
    """The rows of a row group, of these columns by their names; a row without anything where none is asked for."""
    if not columns:
        yield from ({} for _ in range(file.metadata.row_group(group).num_rows))
        return
    there = list(columns.values())
    for batch in file.iter_batches(TEXTS_AT_A_TIME, row_groups=[group], columns=there, use_threads=False):
        values = [_values(batch.column(column)) for column in there]
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))


def _values(column: pa.Array[Any]) -> list[Any]:
    """The values of a column, lists as lists; a text of a dictionary is made once, however often it stands there."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        words = column.dictionary.to_pylist()
        return [None if place is None else words[place] for place in column.indices.to_pylist()]
    if isinstance(column, pa.ListArray | pa.LargeListArray):
        inner = iter(_values(column.flatten()))
        return [
            None if length is None else list(islice(inner, length)) for length in column.value_lengths().to_pylist()
        ]
    return list(column.to_pylist())


def _cells(file: ParquetFile, column: str, group: int) -> Iterator[tuple[int, pa.Scalar[Any]]]:
    """The cells of a column of images in a row group, each after its row; unpacked a few at a time."""
    row = 0
    for batch in file.iter_batches(IMAGES_AT_A_TIME, row_groups=[group], columns=[column], use_threads=False):
        for cell in batch.column(0):
            yield row, cell
            row += 1


def _image(cell: Any, path: Path, column: str, group: int, row: int) -> EmbeddedImage | str | None:  # noqa: ANN401
    """What a cell holds: an image, or where there are no bytes the path of one, or nothing."""
    content, named = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if not content:
        return named if isinstance(named, str) else None
    file_name = PurePosixPath(named.replace("\\", "/")).name if isinstance(named, str) else ""
    digest = hashlib.sha256(content).hexdigest()
    return EmbeddedImage(path, column, group, row, digest, file_name)


def _length(value: Any) -> int:  # noqa: ANN401 - whatever a table holds
    if isinstance(value, list):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str) else 8


class _Reader(threading.local):
    """Reads images one after the other: the next one of a row group comes without unpacking those before it again.

    Each thread and process has files of its own: neither a place in a file nor pyarrow's state is shared.
    """

    def __init__(self) -> None:
        self._place: object = None
        self._cells: Iterator[tuple[int, Any]] = iter(())
        self._row = -1
        self._content: bytes | None = None

    def content(self, image: EmbeddedImage) -> bytes | None:
        """The bytes of an image; None where its row holds none.

        Raises:
            ImageError: The file cannot be read, or has no such row.
        """
        place = (os.getpid(), image.file, image.column, image.group)
        try:
            with _told(image.file):
                if place != self._place or image.row < self._row:
                    self._place, self._row = None, -1
                    self._cells = _cells(_open(image.file), image.column, image.group)
                    self._place = place
                while self._row < image.row:
                    self._row, cell = next(self._cells)
                    if self._row == image.row:
                        value = cell.as_py()
                        self._content = value.get("bytes") if isinstance(value, dict) else value
        except (UserError, StopIteration) as error:
            self._place = None
            raise ImageError(str(error) or "the file has changed") from error
        return self._content


_reader = _Reader()
