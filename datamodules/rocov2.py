"""ROCOv2 (Rueckert et al., 2024): radiology images of open papers with captions; for retrieval, too."""

from __future__ import annotations

from pathlib import Path

from datamodules.captions import CaptionDataModule, CaptionRecord
from datamodules.files import read_table
from datamodules.image_files import ImageFinder
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.retrieval import RetrievalDataModule
from datamodules.split_names import split_of
from umd.files import UserError

LAYOUT = "{train,valid,test}/ and {train,valid,test}_captions.csv"


def split_tables(folder: Path) -> dict[str, Split]:
    """The tables of captions that lie in a folder, by their names before `_captions.csv`, with their splits."""
    names = [path.name.removesuffix("_captions.csv") for path in sorted(folder.glob("*_captions.csv"))]
    return {name: split for name in names if (split := split_of(name)) is not None}


def read_splits(folder: Path, problems: Problems) -> dict[Split, list[CaptionRecord]]:
    """ROCOv2 in its own splits; paths of images are relative to the folder.

    Args:
        folder: Holds `{train,valid,test}/` and, beside each, a table with the columns ID and Caption.
        problems: Takes rows without an id or a caption, and a second table of a split.

    Raises:
        UserError: No split is there; or a table is none, or lacks a column.
    """
    found: dict[Split, list[CaptionRecord]] = {}
    finder = ImageFinder()
    tables = split_tables(folder)
    for name, split in tables.items():
        path = folder / f"{name}_captions.csv"
        if split in found:
            problems.add(f"second table of the {split} split, not read", path.name)
            continue
        found[split] = []
        for number, row in enumerate(read_table(path, ("ID", "Caption")).to_dict("records"), start=2):
            image, caption = row["ID"], row["Caption"]
            if image and caption:
                files = finder.named(folder / name, image)
                # With several, the name without its ending: whoever loads it says so.
                file = files[0] if len(files) == 1 else image if files else f"{image}.jpg"
                found[split].append(CaptionRecord(image, f"{name}/{file}", caption))
            else:
                problems.add("row without an id or a caption, left out", f"{path.name}, row {number}")
    if not any(found.values()):
        why = "no row in them can be used" if found else "there are none"
        raise UserError(f"ROCOv2: looked in {folder} for {LAYOUT}; {why}")
    return {split: records for split, records in found.items() if records}


class ROCOv2Captions(CaptionDataModule):
    """ROCOv2 for pre-training; arguments as in `CaptionDataModule`.

    Args:
        root: Folder with `{train,valid,test}/` and `{train,valid,test}_captions.csv`.
    """

    title = "ROCOv2"
    layout = LAYOUT

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the splits that are there.

        Raises:
            UserError: None of them is, or none has a usable row.
        """
        return read_splits(self.root, problems)


class ROCOv2Retrieval(RetrievalDataModule):
    """ROCOv2 for image-text retrieval; arguments as in `RetrievalDataModule`.

    Args:
        root: Folder with `{train,valid,test}/` and `{train,valid,test}_captions.csv`.
    """

    title = "ROCOv2"
    layout = LAYOUT

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the splits that are there.

        Raises:
            UserError: None of them is, or none has a usable row.
        """
        return read_splits(self.root, problems)
