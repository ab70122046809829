"""SLAKE's training images with captions made from its questions and answers, for pre-training."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.arguments import Unpack
from datamodules.captions import CaptionArguments, CaptionDataModule, CaptionRecord
from datamodules.carving import CarvedBy
from datamodules.problems import Problems
from datamodules.questions import VQARecord
from datamodules.records import Split
from datamodules.slake import SLAKE
from datamodules.slake_facts import captions
from umd.files import UserError


class SLAKECaptions(CaptionDataModule):
    """What the English rows of SLAKE's train.json say of each image, as statements (see `datamodules.slake_facts`).

    Of SLAKE's splits only train is used. The images that protocol `clean` carves out of it where there is no other
    validation split are validation here too, so that nothing is pre-trained on that is measured on. Of several
    captions of an image a training draws one each time; validation takes the first.

    Args:
        root: Folder with `imgs/` (or `images/`) and train.json.
        validation_fraction: Share of the training images that are held out, as of `SLAKE`; 0: none.
        validation_by: As of `SLAKE`: "question" says nothing of what is held out, and shows its images.
        validation_fold: As of `SLAKE`.
        most_words: Words a caption, unless one statement has more.
        **more: As in `CaptionDataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "SLAKE captions"
    layout = "imgs/ and train.json"

    def __init__(
        self,
        root: str,
        *,
        validation_fraction: float = 0.1,
        validation_by: CarvedBy = "image",
        validation_fold: int = 0,
        most_words: int = 40,
        **more: Unpack[CaptionArguments],
    ) -> None:
        super().__init__(root, **more)
        self.questions = SLAKE(
            root,
            validation_fraction=validation_fraction,
            validation_by=validation_by,
            validation_fold=validation_fold,
        )
        if most_words < 1:
            raise UserError(f"most_words must be at least 1, not {most_words}")
        self.most_words = most_words

    def read_published(self, problems: Problems) -> dict[Split, list[CaptionRecord]]:
        """A row for each image of train.json, in its order; those that are carved for validation apart.

        Raises:
            UserError: There is no train.json, or it says nothing of any image.
        """
        asked = [row for row in self.questions.read_published(problems).get("train", ()) if row.accepted]
        if not asked:
            raise self.nothing_found()
        kept, held_out = asked, list[VQARecord]()
        if self.questions.validation_fraction > 0:
            kept, held_out = self.questions.carve(asked)
        splits: dict[Split, list[CaptionRecord]] = {"train": self._records(kept, problems)}
        if held_out:
            splits["validation"] = self._records(held_out, problems)
        return splits

    def _records(self, asked: Sequence[VQARecord], problems: Problems) -> list[CaptionRecord]:
        by_image: dict[str, list[VQARecord]] = {}
        for row in asked:
            by_image.setdefault(row.image, []).append(row)
        records = []
        for image, rows in by_image.items():
            first, *others = captions(rows, self.most_words) or ("",)
            if first:
                records.append(CaptionRecord(image, image, first, tuple(others)))
            else:
                problems.add("image of which nothing is said, left out", image)
        return records
