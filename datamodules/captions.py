"""Radiology images with captions: ROCO (Pelka et al., 2018) and MedICaT (Subramanian et al., 2020)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

from datamodules.base import ImageTextDataModule, Split
from datamodules.files import NotJSONError, parse_json, read_lines
from datamodules.problems import Problems
from umd.files import UserError

SPLIT_SEED = 20200513
"""Of MedICaT's shuffle; not the training seed, so that all seeds share one split."""

MEDICAT_HELD_OUT = 1000
"""MedICaT figures in validation, and as many in test; at most a tenth of the figures each."""


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One image with its texts.

    Attributes:
        sample_id: "roco/<id>" or "medicat/<figure file>".
        image: Path of the image; its first part is the data set, the rest is relative to that set's root.
        text: The caption.
        alternative_texts: Sentences that refer to the figure (MedICaT), for training.
    """

    sample_id: str
    image: str
    text: str
    alternative_texts: tuple[str, ...] = ()


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


def read_medicat(
    path: Path, problems: Problems, *, radiology_only: bool = False, inline_references: bool = True
) -> list[CaptionRecord]:
    """The figures of MedICaT's JSONL file, in its order; lines that cannot be used are counted.

    Args:
        path: The file.
        problems: Takes lines that are broken or lack a figure name or a caption.
        radiology_only: Leave out figures whose `radiology` is false.
        inline_references: Keep the sentences that refer to a figure as its alternative texts.
    """
    records = []
    for where, line in read_lines(path, problems):
        try:
            figure = parse_json(line)
        except NotJSONError:
            problems.add("line that is no JSON, left out", where)
            continue
        if not isinstance(figure, dict) or not (_text(figure, "pdf_hash") and _text(figure, "fig_uri")):
            problems.add("line without pdf_hash and fig_uri, left out", where)
            continue
        if radiology_only and not figure.get("radiology"):
            continue
        caption = _text(figure, "s2_caption")
        if not caption:
            problems.add("figure without s2_caption, left out", where)
            continue
        references = figure.get("s2orc_references") if inline_references else None
        if references is not None and not isinstance(references, list):
            problems.add("s2orc_references that are no list, not used", where)
            references = None
        alternatives = (" ".join(text.split()) for text in references or () if isinstance(text, str))
        name = f"{figure['pdf_hash']}_{figure['fig_uri']}"
        records.append(
            CaptionRecord(f"medicat/{name}", f"medicat/figures/{name}", caption, tuple(filter(None, alternatives)))
        )
    return records


def _text(figure: Mapping[str, Any], key: str) -> str:
    """A text on one line without outer blanks; "" where there is none."""
    value = figure.get(key)
    return " ".join(value.split()) if isinstance(value, str) else ""


def split_medicat(records: list[CaptionRecord]) -> dict[Split, list[CaptionRecord]]:
    """A fixed shuffle: 1,000 for validation, 1,000 for test (at most a tenth each), the rest to train."""
    held_out = min(MEDICAT_HELD_OUT, len(records) // 10)
    shuffled = list(records)
    random.Random(SPLIT_SEED).shuffle(shuffled)
    return {
        "train": shuffled[2 * held_out :],
        "validation": shuffled[:held_out],
        "test": shuffled[held_out : 2 * held_out],
    }


class RadiologyCaptions(ImageTextDataModule[CaptionRecord]):
    """ROCO in its own splits and MedICaT in a fixed random split, as one data set.

    Args:
        root: Folder that holds `roco/` and `medicat/` (either may be missing), and to which the two arguments
            below are relative; None: they are paths of their own.
        roco_root: Folder of ROCO: `{train,validation,test}/radiology/{captions.txt,images/}`.
        medicat_root: Folder of MedICaT: one .jsonl file and `figures/`.
        radiology_only: Use only MedICaT figures marked as radiology.
        inline_references: In training, draw a MedICaT figure's text from its caption and the sentences that
            refer to it; evaluation uses the caption.
        tokenizer: As in `ImageTextDataModule`, like all that follow.
        image_size: Pixels.
        text_length: Tokens.
        batch_size: Samples a device.
        num_workers: Processes a device.
        random_resized_crop: Train on random crops.
        cache: Folder for decoded images.
        seed: Of order, augmentation and choice of text.

    Raises:
        UserError: None of the three folders is given, or an argument is out of its range.
    """

    title: ClassVar[str] = "ROCO + MedICaT"
    layout: ClassVar[str] = (
        "roco/{train,validation,test}/radiology/{captions.txt,images/} or medicat/{*.jsonl,figures/}"
    )

    def __init__(
        self,
        root: str | None = None,
        *,
        roco_root: str | None = None,
        medicat_root: str | None = None,
        radiology_only: bool = False,
        inline_references: bool = True,
        tokenizer: str = "embedded",
        image_size: int = 64,
        text_length: int = 32,
        batch_size: int = 32,
        num_workers: int = 0,
        random_resized_crop: bool = True,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        base = root or roco_root or medicat_root
        if base is None:
            raise UserError(f"{self.title}: give root, roco_root or medicat_root")
        super().__init__(
            base,
            tokenizer=tokenizer,
            image_size=image_size,
            text_length=text_length,
            batch_size=batch_size,
            num_workers=num_workers,
            random_resized_crop=random_resized_crop,
            cache=cache,
            seed=seed,
        )
        self.radiology_only = radiology_only
        self.inline_references = inline_references
        above = Path(root).expanduser() if root is not None else None
        self._given = {"roco": roco_root, "medicat": medicat_root}
        self.folders: dict[str, Path] = {}
        self._present: list[str] = []
        for name, given in self._given.items():
            if given is not None:
                self.folders[name] = (above or Path()) / Path(given).expanduser()
            elif above is not None:
                self.folders[name] = above / name

    def locate(self, image: str) -> Path:
        """The file of an image name, whose first part is the data set."""
        name, _, rest = image.partition("/")
        return self.folders[name] / rest

    def read(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the annotations of the sets that are there.

        Raises:
            UserError: A folder that was named is not there, or neither data set is.
        """
        splits: dict[Split, list[CaptionRecord]] = {}
        for name, folder in self.folders.items():
            if not folder.is_dir():
                if self._given[name] is not None:
                    raise UserError(f"{name}_root: there is no folder {folder}")
                continue
            found = self._read_roco(folder, problems) if name == "roco" else self._read_medicat(folder, problems)
            self._present.append(name)
            for split, records in found.items():
                splits.setdefault(split, []).extend(records)
        splits = {split: records for split, records in splits.items() if records}
        if not splits:
            raise self.nothing_found()
        for name in self.folders.keys() - set(self._present):
            problems.add("data set not found and left out", str(self.folders[name]))
        return splits

    @property
    def description(self) -> dict[str, str]:
        """The data sets and the number of rows of each split that was used."""
        description = super().description
        if len(self._present) == 1:
            description["data"] += f" ({self._present[0]} alone)"
        return description

    def _read_roco(self, folder: Path, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        found: dict[Split, list[CaptionRecord]] = {}
        for split in get_args(Split):
            path = folder / split / "radiology" / "captions.txt"
            if not path.is_file():
                continue
            images = path.with_name("images")
            files = {file.stem: file.name for file in images.iterdir()} if images.is_dir() else {}
            found[split] = [
                CaptionRecord(
                    f"roco/{name}", f"roco/{split}/radiology/images/{files.get(name, f'{name}.jpg')}", caption
                )
                for name, caption in read_roco(path, problems)
            ]
        if not found:
            raise UserError(
                f"ROCO: looked in {folder} for {{train,validation,test}}/radiology/captions.txt; none there"
            )
        return found

    def _read_medicat(self, folder: Path, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        files = sorted(folder.glob("*.jsonl"))
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise UserError(f"MedICaT: looked in {folder} for one .jsonl file; found {names}")
        records = read_medicat(
            files[0],
            problems,
            radiology_only=self.radiology_only,
            inline_references=self.inline_references,
        )
        splits = split_medicat(records)
        if len(splits["test"]) < MEDICAT_HELD_OUT:
            problems.add(
                f"MedICaT split smaller than the usual {MEDICAT_HELD_OUT} for validation and for test",
                f"{len(splits['test'])} each of {len(records)} figures",
            )
        return splits
