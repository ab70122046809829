"""MELINDA (Wu et al., AAAI 2021): figures of biomedical papers with captions, classified by experiment method."""

from __future__ import annotations

from typing import Literal, get_args

from datamodules.arguments import LoaderArguments, Unpack
from datamodules.classification import ClassificationDataModule, ClassificationRecord
from datamodules.files import read_table
from datamodules.image_files import image_folder
from datamodules.problems import Problems
from datamodules.records import Split
from datamodules.split_names import find_splits
from umd.files import UserError

Label = Literal["i_meth", "p_meth", "i_meth_label", "p_meth_label"]


class MELINDA(ClassificationDataModule):
    """MELINDA in its own splits, classified by one of its four columns of labels.

    The paper does not say which column its accuracies (UMD, Tables 3 and 5) are for; the default is the one of
    the released run script, `p_meth_label`, and the specificities of Table 5 are too low for 15 classes or more.

    Args:
        root: Folder with `melinda_images/` (or `images/`), train.csv, dev.csv and test.csv; the names of the splits as
            `datamodules.split_names` takes them (validation.csv, val.csv, ...).
        label: Column to classify by: "i_meth" (85 classes in the published files), "p_meth" (45),
            "i_meth_label" (15) or "p_meth_label" (7).
        text_length: Most tokens of a caption.
        **loader: As in `ImageTextDataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "MELINDA"
    layout = "melinda_images/, train.csv, dev.csv and test.csv"

    def __init__(
        self,
        root: str,
        *,
        label: Label = "p_meth_label",
        text_length: int = 128,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        if label not in get_args(Label):
            raise UserError(f"label must be one of {', '.join(get_args(Label))}, not '{label}'")
        super().__init__(root, text_length=text_length, **loader)
        self.label = label

    def read_published(self, problems: Problems) -> dict[Split, list[ClassificationRecord]]:
        """Reads the split files that are there.

        Raises:
            UserError: None of them is, or two of the same split; or a file lacks a column, or is no CSV in UTF-8.
        """
        files = find_splits(self.root, problems, ending=".csv")
        if not files:
            raise self.nothing_found()
        images = image_folder(self.root, "melinda_images", "images")
        return {split: self._records(path.name, images, problems) for split, path in files.items()}

    def _records(self, name: str, images: str, problems: Problems) -> list[ClassificationRecord]:
        """The rows of a file; their ids are "file:row", and the first row below the header is 1."""
        records = []
        table = read_table(self.root / name, ("figure_file", "caption", self.label))
        for number, (figure, caption, label) in enumerate(table.itertuples(index=False), start=1):
            where = f"{name}:{number}"
            if lacking := [
                column for column, value in zip(table.columns, (figure, caption, label), strict=True) if not value
            ]:
                problems.add(f"row without {' and '.join(lacking)}, left out", where)
            else:
                records.append(ClassificationRecord(where, f"{images}/{figure}", caption, label))
        return records
