"""MedPix 2.0 (Siragusa et al., 2025): CT and MR images of teaching cases with captions; for retrieval, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.arguments import Unpack
from datamodules.captions import CaptionArguments, CaptionDataModule, CaptionRecord
from datamodules.files import read_json_lines
from datamodules.image_files import ImageFinder
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.retrieval import RetrievalDataModule
from datamodules.split_names import split_of
from umd.files import UserError

LAYOUT = "images/ and splitted_dataset/descriptions_{train,dev,test}.jsonl"

Detail = Literal["plane", "modality", "location"]
"""What a case says of an image beside its caption."""

PLACEHOLDERS = ("replace this - description of the image or findings.", "in progress", "in progress.")
"""What the form for captions holds before it is filled in, in lower case: 23 of the 2,050 captions."""

_SAYS_NOTHING = ("nos - not specified", "other view (see caption)", "left blank")


def read_splits(
    folder: Path, problems: Problems, *, details: Collection[Detail] = ()
) -> dict[Split, list[CaptionRecord]]:
    """MedPix 2.0 in its own splits, which share no case; paths of images are relative to the folder.

    Args:
        folder: Holds `images/` and `splitted_dataset/`.
        problems: Takes lines without an image, and captions that are absent, empty or a placeholder.
        details: What is appended to the captions.

    Raises:
        UserError: No split is there; or the details are not known.
    """
    if unknown := [name for name in details if name not in get_args(Detail)]:
        raise UserError(f"details: there is no '{unknown[0]}'; there are {', '.join(get_args(Detail))}")
    finder = ImageFinder()
    found: dict[Split, list[CaptionRecord]] = {}
    for path in sorted((folder / "splitted_dataset").glob("descriptions_*.jsonl")):
        split = split_of(path.stem.removeprefix("descriptions_"))
        if split is None:
            continue  # train_1 and train_2 are the halves of train
        if split in found:
            problems.add(f"second file of the {split} split, not read", path.name)
            continue
        found[split] = []
        for where, row in read_json_lines(path, problems):
            record = _record(row, where, details, problems)
            if record is not None:
                files = finder.named(folder / "images", record.sample_id)
                # With several, the name without its ending: whoever loads it says so.
                file = files[0] if len(files) == 1 else record.sample_id if files else f"{record.sample_id}.png"
                found[split].append(replace(record, image=f"images/{file}"))
    if not any(found.values()):
        why = "no line in them can be used" if found else "there are none"
        raise UserError(f"MedPix: looked in {folder} for {LAYOUT}; {why}")
    return {split: records for split, records in found.items() if records}


def _record(
    row: Mapping[str, Any], where: str, details: Collection[Detail], problems: Problems
) -> CaptionRecord | None:
    """The record of a line, or None (and a counted problem) where it cannot be used; its image has no ending yet."""
    described = row.get("Description")
    described = described if isinstance(described, Mapping) else {}
    image, caption = _text(row.get("image")), _text(described.get("Caption"))
    if not image:
        problems.add("line without an image, left out", where)
    elif not caption:
        problems.add("line without a caption, left out", where)
    elif caption.lower() in PLACEHOLDERS:
        problems.add("line with a placeholder for a caption, left out", where)
    else:
        said = {"plane": described.get("Plane"), "modality": described.get("Modality"), "location": row.get("Location")}
        told = [(name, _text(said[name])) for name in get_args(Detail) if name in details]
        more = [f"{name.capitalize()}: {text}." for name, text in told if text and text.lower() not in _SAYS_NOTHING]
        stop = "." if more and not caption.endswith((".", "!", "?")) else ""
        text = " ".join([caption + stop, *more])
        return CaptionRecord(image, f"images/{image}", text)
    return None


def _text(value: object) -> str:
    """A text on one line without outer blanks; "" where there is none."""
    return " ".join(value.split()) if isinstance(value, str) else ""


class MedPixCaptions(CaptionDataModule):
    """MedPix 2.0 for pre-training: 2,050 images of 671 cases, 2,027 of them with a caption.

    Args:
        root: Folder with `images/` and `splitted_dataset/descriptions_{train,dev,test}.jsonl`.
        details: Appended to each caption: "plane", "modality", "location"; none unless told.
        **captions: As in `CaptionDataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "MedPix"
    layout = LAYOUT

    def __init__(self, root: str, *, details: list[Detail] | None = None, **captions: Unpack[CaptionArguments]) -> None:
        super().__init__(root, **captions)
        self.details = tuple(details or ())

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the splits that are there.

        Raises:
            UserError: None of them is, or none has a usable line.
        """
        return read_splits(self.root, problems, details=self.details)


class MedPixRetrieval(RetrievalDataModule):
    """MedPix 2.0 for image-text retrieval; arguments as in `RetrievalDataModule`.

    The images of a case often share a caption, and to find another one of them counts as wrong.

    Args:
        root: Folder with `images/` and `splitted_dataset/descriptions_{train,dev,test}.jsonl`.
    """

    title = "MedPix"
    layout = LAYOUT

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the splits that are there.

        Raises:
            UserError: None of them is, or none has a usable line.
        """
        return read_splits(self.root, problems)
