"""ROCO (Pelka et al., 2018): radiology images with captions; for retrieval, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from datamodules.captions import CaptionRecord
from datamodules.files import read_lines, read_table
from datamodules.image_files import ImageFinder
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.retrieval import RetrievalDataModule
from datamodules.split_names import find_splits, split_of
from umd.files import UserError

LAYOUT = "{train,validation,test}/radiology/{captions.txt,images/}"

_ARCHIVE = re.compile(r"([^/\s]+)\.tar\.gz")


def read_roco(path: Path, problems: Problems) -> list[tuple[str, str]]:
    """The ids and captions of a ROCO captions.txt (`ROCO_id<TAB>caption`); other lines are counted."""
    captions = []
    for where, line in read_lines(path, problems):
        name, tab, caption = line.partition("\t")
        caption = " ".join(caption.split())
        if not tab:
            problems.add("line without a tab, left out", where)
        elif not name.strip() or not caption:
            problems.add("line without an id or a caption, left out", where)
        else:
            captions.append((name.strip(), caption))
    return captions


def read_roco_table(path: Path, problems: Problems) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The ids and captions of a table with the columns id, name and caption, and the image's name of each id.

    Raises:
        UserError: The file is no CSV file, or lacks a column.
    """
    captions, names = [], {}
    for number, (name, image, caption) in enumerate(
        read_table(path, ("id", "name", "caption")).itertuples(index=False), start=1
    ):
        if not name or not caption:
            problems.add("row without id or caption, left out", f"{path.name}:{number}")
        else:
            captions.append((name, caption))
            names[name] = image
    return captions, names


def names_after_download(radiology: Path) -> dict[str, str]:
    """The name of each id's image as ROCO's own script saves it: its article's archive, "_", its name in that archive.

    From dlinks.txt, whose lines are the id, how to get the archive, and the image in it, tabs between; none without it.
    """
    path = radiology / "dlinks.txt"
    if not path.is_file():
        return {}
    names = {}
    for _, line in read_lines(path, Problems(path.name)):
        name, _, rest = line.partition("\t")
        if archive := _ARCHIVE.search(rest):
            names[name.strip()] = f"{archive[1]}_{rest.rpartition(chr(9))[2].strip()}"
    return names


def read_splits(folder: Path, problems: Problems) -> dict[Split, list[CaptionRecord]]:
    """ROCO in its own splits; a split without a usable line is left out.

    Captions are those of captions.txt or, without it, of traindata.csv (valdata.csv, testdata.csv). An image has the
    name of its id; where it has not, the one that the table, or ROCO's own script, gives it. The path of an image
    begins with "roco/", for the folder.

    Raises:
        UserError: No split is there, or two folders stand for one.
    """
    found: dict[Split, list[CaptionRecord]] = {}
    for split, path in find_splits(folder, problems, ending="").items():
        radiology = path / "radiology"
        names: dict[str, str] = {}
        if (radiology / "captions.txt").is_file():
            captions = read_roco(radiology / "captions.txt", problems)
        elif table := _table(radiology, split):
            captions, names = read_roco_table(table, problems)
        else:
            problems.add("folder of a split without radiology/captions.txt, not read", path.name)
            continue
        images = _images(radiology, [name for name, _ in captions], names)
        found[split] = [
            CaptionRecord(f"roco/{name}", f"roco/{path.name}/radiology/images/{image}", caption)
            for (name, caption), image in zip(captions, images, strict=True)
        ]
    if not found:
        raise UserError(f"ROCO: looked in {folder} for {{train,validation,test}}/radiology/captions.txt; none there")
    return {split: records for split, records in found.items() if records}


def _table(radiology: Path, split: Split) -> Path | None:
    """traindata.csv and the like."""
    tables = sorted(radiology.glob("*data.csv"))
    return next((path for path in tables if split_of(path.stem.removesuffix("data")) == split), None)


def _images(radiology: Path, ids: Iterable[str], names: dict[str, str]) -> Iterator[str]:
    """The image file of each id."""
    folder, finder = radiology / "images", ImageFinder()
    downloaded: dict[str, str] | None = None
    for name in ids:
        files = finder.named(folder, name) or (finder.named(folder, names[name]) if name in names else [])
        if not files:
            downloaded = names_after_download(radiology) if downloaded is None else downloaded
            files = finder.named(folder, downloaded[name]) if name in downloaded else []
        # With several, the name without its ending: whoever loads it says so.
        yield files[0] if len(files) == 1 else name if files else f"{name}.jpg"


class ROCORetrieval(RetrievalDataModule):
    """ROCO for image-text retrieval; arguments as in `RetrievalDataModule`.

    Args:
        root: Folder with `{train,validation,test}/radiology/{captions.txt,images/}`, or with valid/ and the like;
            see `read_splits`.
    """

    title = "ROCO"
    layout = LAYOUT

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the splits that are there.

        Raises:
            UserError: None of them is, or none has a usable line.
        """
        splits = read_splits(self.root, problems)
        if not splits:
            raise self.nothing_found()
        return splits

    def locate(self, image: str) -> Path:
        """The file of an image name, whose first part stands for the folder."""
        return self.root / image.partition("/")[2]
