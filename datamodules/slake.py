"""SLAKE (Liu et al., ISBI 2021): questions about radiology images in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.arguments import Unpack
from datamodules.files import read_rows
from datamodules.problems import Problems
from datamodules.questions import VQARecord, vqa_record
from datamodules.records import Split
from datamodules.vqa import VQAArguments, VQADataModule
from umd.files import UserError

SPLIT_FILES: dict[Split, str] = {"train": "train.json", "validation": "validate.json", "test": "test.json"}


class SLAKE(VQADataModule):
    """SLAKE; its splits share no image, and validation is its own under both protocols.

    In English 4,917 questions in train and 1,053 in validation. A copy without test.json can be trained on;
    only asking for the test split is an error then.

    Args:
        root: Folder with `imgs/`, train.json, validate.json and test.json.
        languages: Values of `q_lang` to keep; None: English alone.
        **vqa: As in `VQADataModule`; `validation_fraction` is only used where validate.json is missing.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "SLAKE"
    layout = "imgs/, train.json, validate.json and test.json"

    def __init__(
        self,
        root: str,
        *,
        languages: list[str] | None = None,
        **vqa: Unpack[VQAArguments],
    ) -> None:
        super().__init__(root, **vqa)
        self.languages = ["en"] if languages is None else languages

    def read_published(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """Reads the split files that are there.

        Raises:
            UserError: None of them is; or a file holds no question in these languages.
        """
        splits: dict[Split, list[VQARecord]] = {}
        for split, name in SPLIT_FILES.items():
            if (self.root / name).is_file():
                splits[split] = self._records(name, problems)
        if not splits:
            raise self.nothing_found()
        return splits

    def _records(self, name: str, problems: Problems) -> list[VQARecord]:
        rows = read_rows(self.root / name, problems)
        kept: Sequence[VQARecord | None] = [
            vqa_record(
                row,
                problems,
                where=name,
                folder="imgs",
                image_key="img_name",
                sample_id=str(row.get("qid")),
                type_key="content_type",
            )
            for row in rows
            if row.get("q_lang") in self.languages
        ]
        if not kept:
            found = sorted({str(row.get("q_lang")) for row in rows})
            raise UserError(f"languages: {self.root / name} has none of {self.languages}, but {found}")
        return [record for record in kept if record is not None]
