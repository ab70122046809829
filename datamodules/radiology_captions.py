"""Radiology images with captions for pre-training: ROCO and MedICaT, and more if they are named, as one data set."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from datamodules import medicat, medpix, roco, rocov2
from datamodules.arguments import Unpack
from datamodules.captions import CaptionArguments, CaptionDataModule, CaptionRecord
from datamodules.problems import Problems
from datamodules.records import Split
from umd.files import UserError

log = logging.getLogger(__name__)

_TITLES = {"roco": "ROCO", "medicat": "MedICaT", "rocov2": "ROCOv2", "medpix": "MedPix"}
_BY_DEFAULT = ("roco", "medicat")
"""What is looked for below `root` without being named: the papers' corpora."""


class RadiologyCaptions(CaptionDataModule):
    """ROCO in its own splits and MedICaT in a fixed random split, as one data set; ROCOv2 and MedPix too, if named.

    Args:
        root: Folder that holds `roco/` and `medicat/` (either may be missing), and to which the four arguments
            below are relative; None: they are paths of their own.
        roco_root: Folder of ROCO: `{train,validation,test}/radiology/{captions.txt,images/}`.
        medicat_root: Folder of MedICaT: one .jsonl file and `figures/`.
        rocov2_root: Folder of ROCOv2: `{train,valid,test}/` and `{train,valid,test}_captions.csv`.
        medpix_root: Folder of MedPix: `images/` and `splitted_dataset/`.
        radiology_only: Use only MedICaT figures marked as radiology.
        inline_references: In training, draw a MedICaT figure's text from its caption and the sentences that
            refer to it; evaluation uses the caption.
        **captions: As in `CaptionDataModule`; `seed` is also that of the choice of text.

    Raises:
        UserError: None of the five folders is given, or an argument is out of its range.
    """

    title = "ROCO + MedICaT"
    layout = f"roco/{roco.LAYOUT} or medicat/{medicat.LAYOUT}"

    def __init__(
        self,
        root: str | None = None,
        *,
        roco_root: str | None = None,
        medicat_root: str | None = None,
        rocov2_root: str | None = None,
        medpix_root: str | None = None,
        radiology_only: bool = False,
        inline_references: bool = True,
        **captions: Unpack[CaptionArguments],
    ) -> None:
        base = root or roco_root or medicat_root or rocov2_root or medpix_root
        if base is None:
            raise UserError(f"{self.title}: give root, roco_root, medicat_root, rocov2_root or medpix_root")
        super().__init__(base, **captions)
        self.radiology_only = radiology_only
        self.inline_references = inline_references
        above = Path(root).expanduser() if root is not None else None
        self._given = {"roco": roco_root, "medicat": medicat_root, "rocov2": rocov2_root, "medpix": medpix_root}
        self.folders: dict[str, Path] = {}
        self._present: list[str] = []
        for name, given in self._given.items():
            if given is not None:
                self.folders[name] = (above or Path()) / Path(given).expanduser()
            elif above is not None and name in _BY_DEFAULT:
                self.folders[name] = above / name

    def locate(self, image: str) -> Path:
        """The file of an image name, whose first part is the data set."""
        name, _, rest = image.partition("/")
        return self.folders[name] / rest

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """Reads the annotations of the sets that are there.

        Raises:
            UserError: A folder that was named is not there, or no data set is.
        """
        splits: dict[Split, list[CaptionRecord]] = {}
        for name, folder in list(self.folders.items()):
            if not folder.is_dir():
                if self._given[name] is not None:
                    raise UserError(f"{name}_root: there is no folder {folder}")
                continue
            if name == "roco" and "rocov2" not in self.folders and rocov2.split_tables(folder):
                log.info("%s: %s holds ROCOv2", self.title, folder)
                name = "rocov2"
                self.folders[name] = self.folders.pop("roco")
            found = self._read_corpus(name, folder, problems)
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
        """The data sets, the number of rows of each split that was used, and the images that were left out."""
        description = super().description
        if not set(self._present) <= set(_BY_DEFAULT):
            description["data"] = " + ".join(_TITLES[name] for name in self._present)
        elif len(self._present) == 1:
            description["data"] += f" ({self._present[0]} alone)"
        return description

    def _read_corpus(self, name: str, folder: Path, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        if name == "roco":
            return roco.read_splits(folder, problems)
        if name != "medicat":
            read = rocov2.read_splits if name == "rocov2" else medpix.read_splits
            return {split: [_below(name, record) for record in rows] for split, rows in read(folder, problems).items()}
        return medicat.read_splits(
            folder, problems, radiology_only=self.radiology_only, inline_references=self.inline_references
        )


def _below(name: str, record: CaptionRecord) -> CaptionRecord:
    """The same record where `locate` looks for it: below the data set's name."""
    return replace(record, sample_id=f"{name}/{record.sample_id}", image=f"{name}/{record.image}")
