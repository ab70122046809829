"""ROCO (Pelka et al., 2018): radiology images with captions; for retrieval, too."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from datamodules.captions import CaptionRecord
from datamodules.files import read_lines
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.retrieval import RetrievalDataModule
from umd.files import UserError

LAYOUT = "{train,validation,test}/radiology/{captions.txt,images/}"


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


def read_splits(folder: Path, problems: Problems) -> dict[Split, list[CaptionRecord]]:
    """ROCO in its own splits; a split without a usable line is left out.

    The path of an image begins with "roco/", for the folder.

    Raises:
        UserError: No split is there.
    """
    found: dict[Split, list[CaptionRecord]] = {}
    for split in get_args(Split):
        path = folder / split / "radiology" / "captions.txt"
        if not path.is_file():
            continue
        images = path.with_name("images")
        files = {file.stem: file.name for file in images.iterdir()} if images.is_dir() else {}
        found[split] = [
            CaptionRecord(f"roco/{name}", f"roco/{split}/radiology/images/{files.get(name, f'{name}.jpg')}", caption)
            for name, caption in read_roco(path, problems)
        ]
    if not found:
        raise UserError(f"ROCO: looked in {folder} for {{train,validation,test}}/radiology/captions.txt; none there")
    return {split: records for split, records in found.items() if records}


class ROCORetrieval(RetrievalDataModule):
    """ROCO for image-text retrieval; arguments as in `RetrievalDataModule`.

    Args:
        root: Folder with `{train,validation,test}/radiology/{captions.txt,images/}`.
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
