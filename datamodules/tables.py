"""A folder with a table for each split, in any of the usual formats, beside its images.

    {train,validation,test}.{csv,tsv,jsonl,json,parquet}, or one table with a column `split`
    data/{train,validation,test}-*.parquet, as on the Hugging Face hub

Splits may have any of the names in `datamodules.split_names`. The paths of images are relative to the folder, or to
`images/` in it; in a Parquet file the images may stand themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from datamodules.files import (
    MissingColumnError,
    in_asked_case,
    read_json_lines,
    read_rows,
    read_table,
    table_head,
)
from datamodules.image_files import ImageFinder
from datamodules.images import ImageError, ImageFile, StoredImage, is_inside
from datamodules.parquet import EmbeddedImage, column_names, read_parquet
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.split_names import looks_like_a_split, split_of
from umd.files import UserError

LAYOUT = "{train,validation,test}.{csv,tsv,jsonl,json,parquet}, or one such table with a column 'split'"

FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")

USUAL_SEPARATORS = {".csv": ",", ".tsv": "\t"}

_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<all>\d{5})(-[0-9a-f]+)?")

Row = dict[str, Any]


def find_tables(root: Path) -> dict[Split, list[Path]]:
    """The tables of each split, in the order of `Split`; nothing where none is named for one.

    Looks in the folder, then in `data/`, then in a folder for each split, which may lie in `default/`.

    Raises:
        UserError: A split has several tables that are not the parts of one, or lacks some of its parts.
    """
    places = [(root, ""), (root / "data", "")]
    places += [(folder, "parts") for folder in (root, root / "default", root / "data")]
    for folder, parts in places:
        found = _parts_in_folders(folder) if parts else _named_in(folder)
        for split, tables in found.items():
            _check_one_table(split, tables, in_folders=bool(parts))
        if found:
            return {split: found[split] for split in get_args(Split) if split in found}
    return {}


def find_single_table(root: Path) -> Path | None:
    """The only table in a folder, under whatever name; None where there is none.

    Raises:
        UserError: There are several.
    """
    tables = _tables(root)
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables[:5]) + (", ..." if len(tables) > 5 else "")
        raise UserError(f"{root} holds {names}: name them for the splits (train, validation, test), or keep one")
    return tables[0] if tables else None


def read_any(
    path: Path, problems: Problems, columns: Sequence[str], optional: Sequence[str] = (), lists: Sequence[str] = ()
) -> Iterator[tuple[str, Row]]:
    """The rows of a table of any format, each after its "file:row"; the first row below a head is 1.

    Cells of CSV and TSV are text, "" where they are empty. The column `image` of a Parquet file may hold images, which
    are then `EmbeddedImage`s. Between the cells of CSV and TSV is what the head has there: a comma, a semicolon or a
    tab. The names of columns may stand there in another case.

    Args:
        path: The table.
        problems: Takes rows that are none.
        columns: What a table with a head must hold; rows of JSON need not.
        optional: What is read where it is there.
        lists: Columns of which a cell of CSV or TSV may hold several values, with "|" between them.

    Raises:
        UserError: The file cannot be read, lacks a column, or is too large; names it.
    """
    ending = path.suffix.lower()
    asked = (*columns, *optional)
    if ending == ".jsonl":
        for where, row in read_json_lines(path, problems):
            yield where, _in_asked_case(row, asked)
        return
    rows: Iterator[Row]
    if ending == ".parquet":
        rows = read_parquet(path, columns, optional=optional)
    elif ending == ".json":
        rows = (_in_asked_case(row, asked) for row in read_rows(path, problems))
    else:
        _, separator = table_head(path, USUAL_SEPARATORS[ending])
        table = read_table(path, columns, optional=optional, separator=separator, any_case=True)
        names = [str(name) for name in table.columns]
        rows = (
            {
                name: cell.split("|") if name in lists and "|" in cell else cell
                for name, cell in zip(names, row, strict=True)
            }
            for row in table.itertuples(index=False, name=None)
        )
    for number, row in enumerate(rows, start=1):
        yield f"{path.name}:{number}", row


def _in_asked_case(row: Row, asked: Sequence[str]) -> Row:
    return dict(zip(in_asked_case(list(row), asked), row.values(), strict=True))


class Tables:
    """The rows of a folder's tables, their images by name.

    An image in a table is named by the digest of its bytes, so that one that stands in many rows is one image, as the
    file that it came from is called: "embedded/0123456789abcdef/a.jpg".

    Args:
        root: The folder.
        columns: What a table with a head must hold.
        optional: What is read where it is there.
        in_train: What a table of the training split must hold besides.
        lists: As in `read_any`.
    """

    def __init__(
        self,
        root: Path,
        columns: Sequence[str],
        *,
        optional: Sequence[str] = (),
        in_train: Sequence[str] = (),
        lists: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.columns = tuple(columns)
        self.optional = tuple(optional)
        self.in_train = tuple(in_train)
        self.lists = tuple(lists)
        self._stored: dict[str, StoredImage] = {}
        self._names: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._finder = ImageFinder()

    def rows(self, problems: Problems) -> Iterator[tuple[Split, str, Row]]:
        """Each row with its split and its "file:row"; in `image` a name that `locate` takes, or what else stands there.

        Nothing where there is no table.

        Raises:
            UserError: A table cannot be read, as `read_any` says; or which is which cannot be told.
        """
        tables = find_tables(self.root)
        single = None if tables else find_single_table(self.root)
        read = [path for path in (single, *chain(*tables.values())) if path is not None]
        self._warn_of_others(read, problems)
        for split, paths in tables.items():
            columns = (*self.columns, *self.in_train) if split == "train" else self.columns
            for path in paths:
                for where, row in self._read(path, problems, columns):
                    yield split, where, self._with_image_name(row)
        if single is None:
            return
        columns = ("split", *self.columns, *self.in_train)
        try:
            for where, row in self._read(single, problems, columns):
                named = row.get("split")
                if (found := split_of(named) if isinstance(named, str) else None) is None:
                    problems.add("row of no known split, left out", where)
                else:
                    yield found, where, self._with_image_name(row)
        except MissingColumnError as error:
            if "split" not in error.columns:
                raise
            raise UserError(f"{error}; add one (train, validation or test), or name it train{single.suffix}") from None

    def _read(self, path: Path, problems: Problems, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The rows of a table; where no row has what training needs, that is a problem which names what is there."""
        seen: dict[str, None] = {}
        for where, row in read_any(path, problems, columns, (*self.in_train, *self.optional), self.lists):
            seen |= dict.fromkeys(row)
            yield where, row
        if seen and (missing := [column for column in self.in_train if column not in seen]):
            there = ", ".join(name[:80] for name in (_names_in(path) or list(seen))[:20])
            named = " and no ".join(f"'{column}'" for column in missing)
            problems.add(f"no column {named} (there: {there}), so none of its rows has one", path.name)

    def locate(self, image: str) -> ImageFile:
        """Where the image of a name is stored."""
        return self._stored.get(image) or self.root / image

    def _with_image_name(self, row: Row) -> Row:
        image = row.get("image")
        if isinstance(image, dict):  # as JSON has what is a struct on the hub
            image = image.get("path")
        if isinstance(image, EmbeddedImage):
            return row | {"image": self._embedded_name(image)}
        return row | {"image": self._file_name(image) if isinstance(image, str) else image}

    def _embedded_name(self, image: EmbeddedImage) -> str:
        if image.digest not in self._names:
            name = f"embedded/{image.digest[:16]}"
            if is_inside(image.file_name) and image.file_name.isprintable():
                name += f"/{image.file_name[:100]}"
            self._names[image.digest] = name
            self._stored[name] = image
        return self._names[image.digest]

    def _file_name(self, image: str) -> str:
        """The file's path in the folder, or in `images/` where it is there alone; the same name where it is nowhere."""
        image = image.strip()
        if image not in self._files:
            found = [self._found(name) for name in (image, f"images/{image}")] if is_inside(image) else []
            self._files[image] = next(filter(None, found), image)
        return self._files[image]

    def _found(self, image: str) -> str | None:
        try:
            path = self._finder.find(self.root / image)
        except ImageError:
            return None  # is told where the images are checked
        return path.relative_to(self.root).as_posix() if path.is_file() else None

    def _warn_of_others(self, read: Sequence[Path], problems: Problems) -> None:
        """Names tables that look like one of a split and are none of those that are read."""
        for path in [*_tables(self.root), *_tables(self.root / "data")]:
            if path not in read and looks_like_a_split(path):
                problems.add("not read, though it is named like a split", path.name)


def _names_in(path: Path) -> list[str]:
    """The names in a table's head; none where it has none, as JSON."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        return column_names(path)
    return table_head(path, USUAL_SEPARATORS[ending])[0] if ending in USUAL_SEPARATORS else []


def _tables(folder: Path) -> list[Path]:
    """The tables in a folder, in the order of their names."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if path.suffix.lower() in FORMATS and not path.name.startswith(".")]
    return sorted(path for path in named if path.is_file())


def _named_in(folder: Path) -> dict[Split, list[Path]]:
    """The tables of a folder that are named for a split."""
    found: dict[Split, list[Path]] = {}
    for path in _tables(folder):
        part = _SHARD.fullmatch(path.stem) if path.suffix.lower() == ".parquet" else None
        if split := split_of(part["split"] if part else path.stem):
            found.setdefault(split, []).append(path)
    return found


def _parts_in_folders(folder: Path) -> dict[Split, list[Path]]:
    """The Parquet files in folders that are named for a split."""
    found: dict[Split, list[Path]] = {}
    for inner in sorted(folder.iterdir()) if folder.is_dir() else []:
        split = split_of(inner.name) if inner.is_dir() else None
        if split and (parts := [path for path in _tables(inner) if path.suffix.lower() == ".parquet"]):
            found.setdefault(split, []).extend(parts)
    return found


def _check_one_table(split: Split, tables: Sequence[Path], in_folders: bool) -> None:
    """Whether a split's tables are one, or all parts of one.

    Raises:
        UserError: They are several, or parts are missing.
    """
    parts = [_SHARD.fullmatch(path.stem) for path in tables]
    named = f"{tables[0].parent}: {', '.join(path.name for path in tables[:4])}{', ...' if len(tables) > 4 else ''}"
    if len({path.parent for path in tables}) > 1 or (len(tables) > 1 and not in_folders and not all(parts)):
        raise UserError(f"several tables for the {split} split in {named}: keep one")
    if all(parts) and (whole := {int(part["all"]) for part in parts if part}) != {len(tables)}:
        raise UserError(f"the {split} split has {len(tables)} of {max(whole)} parts in {named}: bring all of them")
