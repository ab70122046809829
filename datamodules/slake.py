"""SLAKE (Liu et al., ISBI 2021): questions about radiology images in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.arguments import Unpack
from datamodules.files import read_rows
from datamodules.image_files import image_folder
from datamodules.problems import Problems
from datamodules.questions import VQARecord, vqa_record
from datamodules.records import Split
from datamodules.row_ids import row_ids
from datamodules.split_names import find_splits
from datamodules.vqa import VQAArguments, VQADataModule
from umd.files import UserError


class SLAKE(VQADataModule):
    """SLAKE; its splits share no image, and validation is its own under both protocols.

    In English 4,917 questions in train and 1,053 in validation. A copy without test.json can be trained on;
    only asking for the test split is an error then.

    Args:
        root: Folder with `imgs/` (or `images/`), train.json, validate.json and test.json; the names of the splits as
            `datamodules.split_names` takes them (validation.json, val.json, ...).
        languages: Values of `q_lang` to keep; None: English alone.
        **vqa: As in `VQADataModule`; `validation_fraction` is only used where there is no validation file.

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
            UserError: None of them is, or two of the same split; or a file holds no question in these languages.
        """
        files = find_splits(self.root, problems, ending=".json")
        if not files:
            raise self.nothing_found()
        images = image_folder(self.root, "imgs", "images")
        return {split: self._records(path.name, images, problems) for split, path in files.items()}

    def _records(self, name: str, images: str, problems: Problems) -> list[VQARecord]:
        rows = read_rows(self.root / name, problems)
        kept: Sequence[VQARecord | None] = [
            vqa_record(
                row,
                problems,
                where=name,
                folder=images,
                image_key="img_name",
                sample_id=number,
                type_key="content_type",
            )
            for row, number in zip(rows, row_ids(rows), strict=True)
            if row.get("q_lang") in self.languages
        ]
        if not kept:
            found = sorted({str(row.get("q_lang")) for row in rows})
            raise UserError(f"languages: {self.root / name} has none of {self.languages}, but {found}")
        return [record for record in kept if record is not None]
