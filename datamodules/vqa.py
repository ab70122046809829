"""Visual question answering: protocols, answer vocabulary, batches."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from datamodules.answers import answer_vocabulary, normalize_answer
from datamodules.arguments import LoaderArguments, Unpack, check_least
from datamodules.base import ImageTextDataModule
from datamodules.carving import CarvedBy, carve
from datamodules.collate import ImageTextCollate, tokenize
from datamodules.controls import Change, Changed, Noise, OneImage, OtherImage, Reworded, ShuffledWords
from datamodules.images import ImageFile
from datamodules.leaks import Shared, find_shared, other_data
from datamodules.loading import Item, WatchedDataLoader
from datamodules.problems import Problems
from datamodules.questions import VQARecord, with_unique_ids
from datamodules.records import Split
from datamodules.summary import Summary
from datamodules.vqa_groups import question_kinds
from datamodules.vqa_summary import add_questions
from umd.batch import ImageTextBatch, VQABatch
from umd.files import UserError

_SPELLED_APART = re.compile(r"(?<=\d) ?\. ?(?=\d)|(?<=\w) ' (?=\w)| (?=%)")
"""Marks that WordPiece takes out of "3.4 cm", "patient's" and "5%", and that normalisation would remove."""


class VQACollate(ImageTextCollate):
    """Builds a `VQABatch` of items whose records are `VQARecord`s."""

    def __call__(self, items: Sequence[Item[Any]]) -> VQABatch:
        """The batch of these items, in their order."""
        batch = super().__call__(items)
        records: list[VQARecord] = [item.record for item in items]
        answers = tuple(record.answer for record in records)
        tokens = tokenize(self.tokenizer, answers, self.text_length)
        return VQABatch(
            **{field.name: getattr(batch, field.name) for field in fields(batch)},
            answers=answers,
            accepted=tuple(record.accepted for record in records),
            published_answers=tuple(record.published_answer for record in records),
            answer_input_ids=tokens["input_ids"],
            answer_attention_mask=tokens["attention_mask"],
            closed=torch.tensor([record.closed for record in records]),
            closed_by_answer=tuple(record.closed_by_answer for record in records),
            has_twin=torch.tensor([record.has_twin for record in records]),
            question_types=tuple(record.question_type for record in records),
        )


Protocol = Literal["clean", "paper", "hub", "disjoint"]


class VQAArguments(LoaderArguments, total=False):
    """What every data set of questions takes, but `root`: see `VQADataModule`."""

    protocol: Protocol
    validation_fraction: float
    validation_by: CarvedBy
    validation_fold: int
    also_train_on: list[str] | None
    questions_per_image: int | None
    text_length: int


class VQADataModule(ImageTextDataModule[VQARecord]):
    """Questions about images, under one of two protocols. Subclasses add `title`, `layout`, `read_published`.

    A training row without an answer is left out; in validation and test it is asked, and does not count.

    `clean`: no training row that rewords a test question; validation is the published split or, where there
    is none, carved out of train, by image unless told; the answer vocabulary is that of the rows trained on.
    `paper`: as the field does it: all training rows, answer vocabulary from all splits that are there;
    validation is the published split or, where there is none, the test split.

    Args:
        root: Folder of the data set, in its published layout.
        protocol: "clean" or "paper"; "hub" and "disjoint" are VQA-RAD's alone.
        validation_fraction: Share of the training images (or questions, see `validation_by`) that are held out for
            validation where `clean` carves; 0: no validation split.
        validation_by: What such a validation shares with no training row: "image", or "question", which holds out
            questions with all that reword them, about images that are trained on too, as in a test that shares images.
        validation_fold: Which of the disjoint shares of that size is held out, from 0. A training refuses a fold, or a
            "question", where nothing is carved.
        also_train_on: Further data sets of questions whose training rows are trained on too, each as CLASS=FOLDER,
            such as SLAKE=/data/slake, under `clean`. The answer vocabulary is then that of all. Rows on images that
            are, by file or published number, in validation or test here are left out.
        questions_per_image: Train image by image: up to so many of its questions follow each other and see one view of
            it, which an encoder computes once a batch. None: questions come one by one, as in the papers.
        text_length: Most tokens of a question, and of an answer.
        **loader: As in `ImageTextDataModule`.

    Raises:
        UserError: An argument is out of its range.
    """

    protocols: ClassVar[tuple[Protocol, ...]] = ("clean", "paper")
    """Those that the data set has."""

    def __init__(
        self,
        root: str,
        *,
        protocol: Protocol = "clean",
        validation_fraction: float = 0.1,
        validation_by: CarvedBy = "image",
        validation_fold: int = 0,
        also_train_on: list[str] | None = None,
        questions_per_image: int | None = None,
        text_length: int = 32,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        if questions_per_image is not None:
            check_least(1, questions_per_image=questions_per_image)
        if protocol not in self.protocols:
            others = " ('hub' and 'disjoint' are VQA-RAD's)" if protocol in get_args(Protocol) else ""
            raise UserError(
                f"{self.title}: protocol must be {' or '.join(map(repr, self.protocols))}, not '{protocol}'{others}"
            )
        if not 0 <= validation_fraction < 1:
            raise UserError(f"validation_fraction must be in [0, 1), not {validation_fraction}")
        if validation_by not in get_args(CarvedBy):
            raise UserError(f"validation_by must be 'image' or 'question', not '{validation_by}'")
        check_least(0, validation_fold=validation_fold)
        super().__init__(root, text_length=text_length, **loader)
        self.protocol = protocol
        self.validation_fraction = validation_fraction
        self.validation_by: CarvedBy = validation_by
        self.validation_fold = validation_fold
        self._check_carving()
        self.companions = _companions(also_train_on or ())
        self._check.locate = self._locate_any  # an image's name tells whose it is
        self.rows_per_image = questions_per_image
        self._twins_left_out = 0
        self._is_carved = False
        self._companion_rows: dict[str, int] = {}

    @abstractmethod
    def read_published(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """Reads the splits as published, twins marked; a validation split only where it is one of its own."""

    def read(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """The splits under the protocol in use."""
        self._check_carving()
        splits = {name: with_unique_ids(rows, problems) for name, rows in self.read_published(problems).items()}
        if self.protocol != "paper" and "train" in splits:
            published = splits["train"]
            splits["train"] = [record for record in published if not record.has_twin]
            self._twins_left_out = len(published) - len(splits["train"])
        if "train" in splits:
            splits["train"] = self._with_answers(splits["train"], problems)
        if "validation" not in splits:
            if self.protocol == "paper" and "test" in splits:
                splits["validation"] = splits["test"]
            elif self.protocol != "paper" and "train" in splits and self.validation_fraction > 0:
                splits["train"], splits["validation"] = self._carved(splits["train"], problems)
                self._is_carved = True
        if "train" in splits and self.companions:
            kept_back = [record.image for split, rows in splits.items() if split != "train" for record in rows]
            held_out = self.find_images(kept_back)
            for name, companion in self.companions.items():
                rows = self._with_answers(_training_rows(name, companion, problems), problems)
                shared = {image.here for image in self._shared(rows, held_out)}
                rows = [record for record in rows if record.image not in shared]
                self._companion_rows[name] = len(rows)
                splits["train"] = [*splits["train"], *rows]
        return splits

    def _shared(self, rows: Sequence[VQARecord], held_out: Mapping[str, ImageFile]) -> list[Shared]:
        return find_shared(self.find_images(record.image for record in rows), [held_out], near_duplicates=False)[0]

    def _locate_any(self, image: str) -> ImageFile:
        """As `locate`; an image of a companion is located there."""
        name, _, rest = image.partition("/")
        return self.companions[name].locate(rest) if name in self.companions else self.locate(image)

    def _with_answers(self, training: Sequence[VQARecord], problems: Problems) -> list[VQARecord]:
        """What can be trained on; the rest is a counted problem."""
        for record in training:
            if not record.accepted:
                problems.add("train row without an answer, left out", f"{record.sample_id} ({record.image})")
        return [record for record in training if record.accepted]

    def carve(self, training: Sequence[VQARecord]) -> tuple[list[VQARecord], list[VQARecord]]:
        """Training rows and those that are held out of them for validation, where no split is published.

        Raises:
            UserError: There are too few.
        """
        return carve(training, self.validation_fraction, self.validation_by, self.validation_fold)

    def _carved(self, training: Sequence[VQARecord], problems: Problems) -> tuple[list[VQARecord], list[VQARecord]]:
        """Training and validation rows; where there are too few, what is wrong with the files is said as well."""
        if not training:
            raise self.no_usable_row("train", problems)
        try:
            return self.carve(training)
        except UserError as error:
            raise UserError(f"{error}. {problems}" if problems.counts else str(error)) from None

    def _check_carving(self) -> None:
        if self.protocol == "disjoint" and self.validation_by == "question":
            raise UserError(
                "validation_by 'question' is for a test that shares images with train; protocol disjoint has none of "
                "them: leave it at 'image'"
            )

    def _check_carved(self) -> None:
        """Refuses a share of train as validation where there is none: every fold would be one and the same."""
        if not self._told_share or not self.has_split("train") or self._is_carved:
            return
        if self.protocol == "paper":
            why = "protocol paper validates on the published split or the test split"
        elif self.validation_fraction == 0:
            why = "validation_fraction is 0"
        else:
            why = f"{self.title} has a validation split of its own"
        raise UserError(
            f"validation_by and validation_fold say which rows of train are held out for validation, but {why}: "
            "leave both out"
        )

    @property
    def _told_share(self) -> bool:
        """Whether another share than the first, by image, was asked for."""
        return (self.validation_by, self.validation_fold) != ("image", 0)

    def setup(self, stage: str | None = None) -> None:
        """As in `ImageTextDataModule`."""
        if stage in (None, "fit", "validate"):
            self._check_carved()
        super().setup(stage)

    def has_truth(self, record: VQARecord) -> bool:
        """Whether the question has an answer."""
        return bool(record.accepted)

    def told(self, record: VQARecord) -> str:
        """Question and answer."""
        return f"{record.question}\n{' | '.join(record.accepted) or '(no answer)'}"

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer vocabulary, most frequent first: of the rows trained on (clean), of all splits (paper).

        Under `paper` the validation split counts only where it is one of its own.
        """
        splits: list[Split] = ["train"]
        if self.protocol == "paper":
            published = self._read()
            splits += ["test"] if "test" in published else []
            if not self.validates_on_test:
                splits += ["validation"] if "validation" in published else []
        return answer_vocabulary(record.answer for split in splits for record in self.records(split) if record.accepted)

    @property
    def validates_on_test(self) -> bool:
        """Whether validation is the test split itself, as under `paper` where none is published."""
        published = self._read()
        return "validation" in published and published["validation"] is published.get("test")

    def answer_tokens(self, answers: Sequence[str]) -> list[list[int]]:
        """Each answer's token ids, start and end token included, at most `text_length` of them."""
        encoded = self.tokenizer(list(answers), truncation=True, max_length=self.text_length, padding=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def answer_text(self, token_ids: Sequence[int]) -> str:
        """The normalised answer that these ids spell, special tokens left out; "" where they spell nothing."""
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return normalize_answer(_SPELLED_APART.sub(lambda mark: mark[0].strip(), text)) or ""

    def make_collate(self) -> Callable[[Sequence[Item[Any]]], ImageTextBatch]:
        """What turns a list of items into a `VQABatch`."""
        return VQACollate(self.tokenizer, self.text_length)

    def twin_of(self, record: VQARecord) -> VQARecord | None:
        """The reworded form of a test question, where the data set has one beside the split."""
        return None

    def controls(self, blank: Tensor) -> dict[str, Change]:
        """What can be done to the test questions to see what their answers owe to image and wording, by name.

        "other image" is left out where the split has one image, "reworded twin" where no question has one.

        Args:
            blank: (3, S, S), the image that says nothing.
        """
        records = self.records("test")
        changes: dict[str, Change] = {"blank image": OneImage(blank), "noise": Noise()}
        if len({record.image for record in records}) > 1:
            changes["other image"] = OtherImage(self._dataset("test", training=False))
        changes["shuffled words"] = ShuffledWords()
        twins = {place: twin for place, record in enumerate(records) if (twin := self.twin_of(record)) is not None}
        if twins:
            changes["reworded twin"] = Reworded(twins)
        return changes

    def changed_dataloader(self, change: Change, places: Sequence[int]) -> DataLoader[Any]:
        """The test questions at these places that the change is for, changed."""
        asked = [place for place in places if not isinstance(change, Reworded) or place in change.twins]
        changed = Changed(self._dataset("test", training=False), change)
        return WatchedDataLoader(Subset(changed, asked), shuffle=False, **self._loader_arguments())

    def test_groups(self) -> dict[str, list[bool]]:
        """Further groups of the test questions, see `question_kinds`; images of train are not looked at."""
        return question_kinds(self._read().get("train", []), self.records("test"))

    @property
    def description(self) -> dict[str, str]:
        """Data set, protocol, rows of each split that was used, and what the protocol left out."""
        sizes = super().description
        description = {"data": sizes.pop("data"), "protocol": self.protocol, **sizes}
        for title, rows in self._companion_rows.items():
            description[f"of {title} in train"] = str(rows)
        if told := self._carving():
            description["validation carved"] = told
        if told := self._answer_types():
            description["answer types"] = told
        if self.protocol == "paper":
            if "validation" in self._usable and self.validates_on_test:
                description["validated on"] = "the test split itself"
            if twins := sum(record.has_twin for record in self._usable.get("train", ())):
                description["training rows that are twins"] = str(twins)
        if self._twins_left_out:
            description["twins left out of train"] = str(self._twins_left_out)
        if "test" in self._usable and any(record.has_twin for record in self._usable["test"]):
            description["test without twins"] = str(sum(not record.has_twin for record in self._usable["test"]))
        return description

    def _carving(self) -> str:
        """How validation was carved, where that was told; else ""."""
        if not (self._told_share and self._is_carved and "validation" in self._usable):
            return ""
        how = f"by {self.validation_by}, fold {self.validation_fold}"
        if self.validation_by == "image":
            return how
        trained = {record.image for record in self._read()["train"]}
        images = {record.image for record in self._usable["validation"]}
        return f"{how}, rewordings on one side, {len(images & trained):,} of {len(images):,} images in train too"

    def _answer_types(self) -> str:
        """How open and closed questions are told apart, where rows do not say it; else ""."""
        used = [record.closed_by_answer for records in self._usable.values() for record in records]
        if not any(used):
            return ""
        given = "none given" if all(used) else f"not given for {sum(used):,} of {len(used):,} rows"
        return f"{given}, closed is what is answered yes or no"

    def summary(self) -> Summary:
        """Adds counts of questions, ceilings, what can be said without looking, and a row for each test question.

        Raises:
            UserError: A split has no usable row, or a share of train was asked for where none is held out.
        """
        self._check_carved()
        summary = super().summary()
        answers = self.answers if self.has_split("train") else ()
        add_questions(summary, {split: self.records(split) for split in summary.splits}, answers)
        if self.protocol != "paper":
            summary.heads["with_twin"] = "with twin in\npublished train"
        return summary


def _companions(given: Sequence[str]) -> dict[str, VQADataModule]:
    """The data sets of questions that are named so, by title; of one title the second is called "... 2" and so on."""
    companions: dict[str, VQADataModule] = {}
    for one in given:
        data = other_data(one, "--data.also_train_on")
        if not isinstance(data, VQADataModule):
            raise UserError(f"also_train_on: '{one}' is no data set of questions")
        titled = sum(other.title == data.title for other in companions.values())
        companions[data.title if not titled else f"{data.title} {titled + 1}"] = data
    return companions


def _training_rows(name: str, companion: VQADataModule, problems: Problems) -> list[VQARecord]:
    """A companion's training rows, with its name before those of images and before ids."""
    if not companion.root.is_dir():
        raise companion.nothing_found()
    return [
        replace(record, image=f"{name}/{record.image}", sample_id=f"{name}/{record.sample_id}")
        for record in companion.read(problems).get("train", ())
    ]
