"""Tables of one's own, in every format, and whatever else lies under such a name."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from datamodules.images import decode
from datamodules.parquet import read_parquet
from datamodules.problems import Problems
from datamodules.tables import Tables, find_tables
from umd.files import UserError

ROWS = [
    {"image": "a.png", "caption": "a round, bright lesion", "split": "train"},
    {"image": "images/b.png", "caption": 'no "finding" here', "split": "valid"},
    {"image": "scans/c.png", "caption": "épanchement 左", "split": "TEST"},
]


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    if path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=path.suffix == ".jsonl", force_ascii=False)
    return path


def picture(path: Path, grey: int = 100) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 30), grey).save(path)
    return path.read_bytes()


def read(root: Path, columns: Sequence[str] = ("image", "caption")) -> list[tuple[str, str, dict[str, Any]]]:
    return list(Tables(root, columns).rows(Problems("t")))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_one_table_or_one_for_each_split_in_any_format(tmp_path: Path, ending: str) -> None:
    for name in ("images/a.png", "images/b.png", "scans/c.png"):
        picture(tmp_path / name)
    write_table(tmp_path / f"pairs.{ending}", ROWS)
    one = read(tmp_path)
    (tmp_path / f"pairs.{ending}").unlink()
    for row, name in zip(ROWS, ("train", "val", "test"), strict=True):
        write_table(tmp_path / f"{name}.{ending}", [{key: row[key] for key in ("image", "caption")}])
    several = read(tmp_path)
    found = [
        ("train", "images/a.png", "a round, bright lesion"),
        ("validation", "images/b.png", 'no "finding" here'),
        ("test", "scans/c.png", "épanchement 左"),
    ]
    for rows in (one, several):
        assert [(split, row["image"], row["caption"]) for split, _, row in rows] == found


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_the_head_tells_the_separator_and_may_have_capitals(tmp_path: Path, mark: str, ending: str) -> None:
    rows = pd.DataFrame([{"Image": "a.png", "CAPTION": "one, two; three", "Other": "x"}])
    rows.to_csv(tmp_path / f"train.{ending}", sep=mark, index=False)
    assert [row for _, _, row in read(tmp_path)] == [{"image": "a.png", "caption": "one, two; three"}]


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_names_with_capitals_in_other_formats(tmp_path: Path, ending: str) -> None:
    write_table(tmp_path / f"train.{ending}", [{"Image": "a.png", "Caption": "x"}])
    assert [row for _, _, row in read(tmp_path)] == [{"image": "a.png", "caption": "x"}]


def test_lists_in_parquet_are_lists(tmp_path: Path) -> None:
    lists: list[Any] = [["left", "left side"], [], None, ["left", None]]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        table = pa.table({"image": ["a.png"] * 4, "caption": pa.array(lists, type=kind), "n": [[1], [2, 3], [], [4]]})
        parquet.write_table(table, tmp_path / "train.parquet")
        found = [row for _, _, row in read(tmp_path, ("image", "caption", "n"))]
        assert [row["caption"] for row in found] == lists and found[1]["n"] == [2, 3]
    many = pa.table({"image": ["a.png"] * 3000, "caption": [[str(place), "x"] for place in range(3000)]})
    parquet.write_table(many, tmp_path / "train.parquet", row_group_size=1700)
    assert [row["caption"][0] for _, _, row in read(tmp_path)] == [str(place) for place in range(3000)]
    parquet.write_table(pa.table({"image": ["a.png"], "caption": [{"text": "x"}]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"column 'caption' holds struct.*; a cell is a text, a number, or a list"):
        read(tmp_path)


def test_tables_that_cannot_be_told_apart(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", ROWS)
    write_table(tmp_path / "train.json", ROWS)
    with pytest.raises(UserError, match=r"several tables for the train split in .*: train\.csv, train\.json: keep one"):
        find_tables(tmp_path)
    (tmp_path / "train.json").rename(tmp_path / "b.json")
    (tmp_path / "train.csv").rename(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"holds a\.csv, b\.json: name them for the splits"):
        read(tmp_path)


def test_half_a_download_is_told(tmp_path: Path) -> None:
    for number in (0, 2):
        write_table(tmp_path / "data" / f"train-{number:05}-of-00003.parquet", ROWS)
    with pytest.raises(UserError, match=r"the train split has 2 of 3 parts in .*: bring all of them"):
        find_tables(tmp_path)
    write_table(tmp_path / "data" / "train-00001-of-00003.parquet", ROWS)
    assert [len(tables) for tables in find_tables(tmp_path).values()] == [3]


def test_the_hubs_own_conversion_has_a_folder_for_each_split(tmp_path: Path) -> None:
    write_table(tmp_path / "default" / "validation" / "0000.parquet", ROWS)
    write_table(tmp_path / "default" / "validation" / "0001.parquet", ROWS)
    assert [split for split, _, _ in read(tmp_path)] == ["validation"] * 6


def write_images(path: Path, images: Sequence[Any], **columns: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = [f"caption {number}" for number in range(len(images))]
    parquet.write_table(pa.table({"image": images, "caption": captions} | columns), path, row_group_size=3)
    return path


@pytest.mark.parametrize("form", ["struct", "bytes", "dictionary"])
def test_images_in_a_table_are_read_where_they_are(tmp_path: Path, form: str) -> None:
    files = [picture(tmp_path / "made" / f"{number}.png", number) for number in (9, 50, 50, 200)]
    order = [0, 1, 2, 3, 0, 1, 0]
    images: Any = [{"bytes": files[place], "path": f"x/{place}.png"} for place in order]
    if form != "struct":
        images = pa.array([files[place] for place in order], type=pa.binary())
        images = images.dictionary_encode() if form == "dictionary" else images
    write_images(tmp_path / "own" / "train.parquet", images)
    tables = Tables(tmp_path / "own", ("image", "caption"))
    names = [row["image"] for _, _, row in tables.rows(Problems("t"))]
    assert len(set(names)) == 3 and names[1] == names[2], "the same bytes are one image"
    assert [name.count("/") for name in names] == [2 if form == "struct" else 1] * 7
    for place in reversed(range(7)):  # and not only in the table's order
        pixels = np.asarray(decode(tables.locate(names[place])))
        assert (pixels == (9, 50, 50, 200)[order[place]]).all()


def test_an_image_that_changed_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    path = write_images(tmp_path / "train.parquet", [picture(tmp_path / "a.png", 1)])
    tables = Tables(tmp_path, ("image", "caption"))
    ((_, _, row),) = tables.rows(Problems("t"))
    path.write_bytes(b"gone")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read as a Parquet file"):
        decode(tables.locate(row["image"]))
    write_images(path, [picture(tmp_path / "a.png", 2)])
    with pytest.raises(UserError, match="the file has changed"):
        decode(tables.locate(row["image"]))


# Hostile ones


def test_no_path_in_a_table_leads_outside(tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.png")
    names = ["../secret.png", str(tmp_path / "secret.png"), "images/../../secret.png", "..\\secret.png", "a\0.png"]
    inside = {"bytes": secret, "path": "../../secret.png"}
    images = [{"bytes": None, "path": name} for name in names] + [inside]
    write_images(tmp_path / "own" / "train.parquet", images)
    rows = read(tmp_path / "own")
    assert [row["image"] for _, _, row in rows][:-1] == [
        name.strip() for name in names
    ]  # refused where they are checked
    last = rows[-1][2]["image"]
    assert last.startswith("embedded/") and last.endswith("/secret.png") and ".." not in last
    write_table(tmp_path / "own" / "train.parquet", [{"image": name, "caption": "c"} for name in names])
    assert [row["image"] for _, _, row in read(tmp_path / "own")] == names


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([1, 2], "column 'image' holds int64"),
        ([[[0, 255]], [[7]]], "column 'image' holds list<"),
        ([{"path": "a.png"}], "column 'image' holds struct<path: string>"),
        ([{"bytes": "a"}], "column 'image' holds struct<bytes: string>"),
        ([1.5], "column 'image' holds double"),
    ],
)
def test_images_of_another_type_are_told(tmp_path: Path, images: list[Any], told: str) -> None:
    write_images(tmp_path / "train.parquet", images)
    with pytest.raises(UserError, match=told):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train.parquet", b"no parquet", "train.parquet cannot be read as a Parquet file: .*magic bytes"),
        ("train.parquet", b"", "train.parquet cannot be read as a Parquet file"),
        ("train.parquet", b"PAR1" + bytes(100) + struct.pack("<i", 80) + b"PAR1", "cannot be read as a Parquet file"),
        ("train.csv", "image,caption\na.png,x\n".encode("utf-16"), "line 1: not UTF-8 .* save the file as UTF-8"),
        ("train.csv", b"image,caption,image\na.png,x,b.png\n", "several columns 'image'"),
        ("train.csv", b"picture,caption\na.png,x\n", r"no column 'image' \(there: picture, caption\)"),
        ("train.csv", b"image;text\na.png;x\n", r"no column 'caption' \(there: image, text\)"),
        (
            "train.csv",
            b"image,caption\na.png,one, two\n",
            "line 2 has 3 cells, the header 2: put a text with a comma",
        ),
        ("my.csv", b"image,caption\na.png,x\n", r"no column 'split' \(there.*, or name it train\.csv"),
        ("train.csv", b"image,caption\na.png,x\0y\n", "line 2: a NUL byte"),
        ("train.tsv", b"", "is not a CSV file with a header"),
        ("train.json", '[{"image": "a"}]'.encode("utf-16"), "is not a JSON file"),
        ("train.jsonl", '{"image": "a"}\n'.encode("utf-16"), "is UTF-16; save the file as UTF-8"),
        ("train.json", b"[" * 100_000, "it nests too deeply"),
    ],
)
def test_what_is_no_such_table_is_one_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        read(tmp_path)
    assert name in str(caught.value)


def test_columns_that_occur_twice_are_told_in_parquet_too(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["image", "caption", "caption"])
    parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet: several columns 'caption'"):
        read(tmp_path)


def test_marks_of_a_byte_order_and_halves_of_characters(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("\ufeffimage,caption\na.png,\u202egnp.a\u202c\n".encode())
    (tmp_path / "test.jsonl").write_bytes(b'\xef\xbb\xbf{"image": "b\\ud800.png", "caption": "half \\ud83d of one"}\n')
    (_, _, first), (_, _, second) = read(tmp_path)
    assert first == {"image": "a.png", "caption": "\u202egnp.a\u202c"}
    assert second == {"image": "b\ufffd.png", "caption": "half \ufffd of one"}
    broken = pa.array([b"caf\xe9"]).cast(pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"image": ["a.png"], "caption": broken}), tmp_path / "validation.parquet")
    with pytest.raises(UserError, match=r"validation\.parquet cannot be read as a Parquet file: .*utf-8"):
        read(tmp_path)


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_gigabyte_of_nothing_is_refused_at_once(tmp_path: Path, ending: str) -> None:
    with (tmp_path / f"train.{ending}").open("wb") as handle:
        os.truncate(handle.fileno(), 2**30)
    start = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"train\.{ending}"):
            read(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 5 and peak < 100 * 2**20


def bomb(path: Path, rows: int, text: str) -> Path:
    """A table that says `text` so many times, and holds it once."""
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text]))
    parquet.write_table(pa.table({"image": same, "caption": same}), path, compression="zstd", row_group_size=rows)
    return path


@pytest.mark.parametrize(
    ("rows", "length", "told"),
    [
        (1_000_000, 1_000_000, "more than 268,435,456 bytes of text"),
        (5_000, 1, "5,000 rows; more than 4,000 are not read"),
        (2, 200_000, "holds [0-9,]* bytes of text; more than 100,000"),
    ],
)
def test_a_table_that_unpacks_to_a_terabyte_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, length: int, told: str
) -> None:
    path = bomb(tmp_path / "train.parquet", rows, "x" * length)
    assert path.stat().st_size < 300_000
    if rows == 2:
        monkeypatch.setattr("datamodules.parquet.MOST_BYTES", 100_000)
    if rows == 5_000:
        monkeypatch.setattr("datamodules.parquet.MOST_ROWS", 4_000)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=told):
            for _ in read_parquet(path, ("image", "caption")):
                pass
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert pa.default_memory_pool().max_memory() < 2**30


def test_a_parquet_file_with_broken_bytes_is_told_and_never_more(tmp_path: Path) -> None:
    path = write_images(tmp_path / "train.parquet", [picture(tmp_path / "a.png", place) for place in range(7)])
    whole, random, told = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 6):
            content[place] = random.integers(256)
        path.write_bytes(content[: random.integers(20, len(content) + 1)])
        try:
            read(tmp_path)
        except UserError as error:
            told += "train.parquet" in str(error)
    assert told > 30


def test_rows_of_json_say_what_they_will(tmp_path: Path) -> None:
    images: list[Any] = [7, None, ["a.png"], {"bytes": None, "path": "a.png"}, {"path": 3}, "a" * 5000]
    (tmp_path / "train.json").write_text(json.dumps([{"image": image, "caption": "c"} for image in images]))
    found = [row["image"] for _, _, row in read(tmp_path)]
    assert found == [7, None, ["a.png"], "a.png", 3, "a" * 5000]


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "train.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"train\.parquet: Parquet files need pyarrow: pip install -e '\.\[hub\]'"):
        read(tmp_path)
