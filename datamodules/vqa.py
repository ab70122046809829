"""Visual question answering: records, protocols, answer vocabulary, batches."""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch

from datamodules.answers import answer_vocabulary, normalize_answer
from datamodules.base import ImageTextDataModule, Split
from datamodules.collate import ImageTextCollate, tokenize
from datamodules.loading import Item
from datamodules.problems import Problems
from umd.batch import ImageTextBatch, VQABatch
from umd.files import UserError

SPLIT_SEED = 20180516
"""Of the validation images; not the training seed, so that all seeds share one split."""

_SPELLED_APART = re.compile(r"(?<=\d) ?\. ?(?=\d)|(?<=\w) ' (?=\w)| (?=%)")
"""Marks that WordPiece takes out of "3.4 cm", "patient's" and "5%", and that normalisation would remove."""


@dataclass(frozen=True, slots=True)
class VQARecord:
    """One question about an image.

    Attributes:
        sample_id: The question's id, unique in its split.
        image: Path of the image, relative to the data set's root.
        question: As published.
        answer: After VQA normalisation.
        closed: A closed question (yes / no and the like), else an open one.
        question_type: As published, "" where the data set gives none.
        has_twin: The question stands, reworded and with the same image, on the other side of the train / test
            split as the field uses it.
    """

    sample_id: str
    image: str
    question: str
    answer: str
    closed: bool
    question_type: str
    has_twin: bool = False

    @property
    def text(self) -> str:
        """The question."""
        return self.question

    @property
    def alternative_texts(self) -> tuple[str, ...]:
        """None: a question is used as it is."""
        return ()


def vqa_record(
    row: Mapping[str, Any],
    problems: Problems,
    *,
    where: str,
    folder: str,
    image_key: str,
    sample_id: str,
    question_key: str = "question",
    type_key: str = "question_type",
) -> VQARecord | None:
    """The record of a published row, or None (and a counted problem) where it cannot be used.

    Args:
        row: The row, with `answer`, `answer_type` ("OPEN" or "CLOSED", blanks and case aside) and the keys
            below.
        problems: Takes the row if it has no question, no answer, no image or an unknown answer type.
        where: The file, for messages.
        folder: What the paths of images are relative to, itself relative to the data set's root.
        image_key: Key of the image's path.
        sample_id: The question's id.
        question_key: Key of the question.
        type_key: Key of the question's type.
    """
    question, answer, image = row.get(question_key), normalize_answer(row.get("answer")), row.get(image_key)
    answer_type = str(row.get("answer_type")).strip().upper()
    if not isinstance(question, str) or not question.strip():
        problems.add("row without a question, left out", f"{where}, id {sample_id}")
    elif answer is None:
        problems.add("row without an answer, left out", f"{where}, id {sample_id}")
    elif answer_type not in ("OPEN", "CLOSED"):
        problems.add("row whose answer_type is neither OPEN nor CLOSED, left out", f"{where}, id {sample_id}")
    elif not isinstance(image, str) or not image.strip():
        problems.add(f"row without {image_key}, left out", f"{where}, id {sample_id}")
    else:
        path, question_type = f"{folder}/{image}", str(row.get(type_key) or "").strip()
        return VQARecord(sample_id, path, question.strip(), answer, answer_type == "CLOSED", question_type)
    return None


def with_unique_ids(records: Sequence[VQARecord], problems: Problems) -> list[VQARecord]:
    """The same records; an id that occurred before gets "#2", "#3" and so on, which is a counted problem."""
    seen: Counter[str] = Counter()
    taken = {record.sample_id for record in records}
    unique = []
    for record in records:
        seen[record.sample_id] += 1
        if seen[record.sample_id] > 1:
            name = f"{record.sample_id}#{seen[record.sample_id]}"
            while name in taken:
                name += "'"
            taken.add(name)
            problems.add("question id that occurs again, renamed", f"{record.sample_id} to {name}")
            record = replace(record, sample_id=name)
        unique.append(record)
    return unique


def carve_by_image(records: Sequence[VQARecord], fraction: float) -> tuple[list[VQARecord], list[VQARecord]]:
    """Splits rows so that no image is on both sides: a share of the images goes to the second part.

    The choice depends on the image names and `SPLIT_SEED` alone. Both parts keep at least one image.

    Raises:
        UserError: There are not two images.
    """
    images = sorted({record.image for record in records})
    if len(images) < 2:
        raise UserError(f"cannot carve a validation split out of {len(images)} image(s): set validation_fraction=0")
    random.Random(SPLIT_SEED).shuffle(images)
    held_out = set(images[: min(max(round(fraction * len(images)), 1), len(images) - 1)])
    kept = [record for record in records if record.image not in held_out]
    return kept, [record for record in records if record.image in held_out]


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
            answer_input_ids=tokens["input_ids"],
            answer_attention_mask=tokens["attention_mask"],
            closed=torch.tensor([record.closed for record in records]),
            has_twin=torch.tensor([record.has_twin for record in records]),
            question_types=tuple(record.question_type for record in records),
        )


class VQADataModule(ImageTextDataModule[VQARecord]):
    """Questions about images, under one of two protocols. Subclasses add `title`, `layout`, `read_published`.

    `clean`: no training row that rewords a test question; validation is the published split or, where there
    is none, carved out of train by image; the answer vocabulary is that of the rows trained on.
    `paper`: as the field does it: all training rows, answer vocabulary from all splits that are there;
    validation is the published split or, where there is none, the test split.

    Args:
        root: Folder of the data set, in its published layout.
        protocol: "clean" or "paper".
        validation_fraction: Share of the training images that are held out for validation where `clean`
            carves; 0: no validation split.
        tokenizer: As in `ImageTextDataModule`, like all that follow.
        image_size: Pixels.
        text_length: Most tokens of a question, and of an answer.
        batch_size: Samples a device.
        num_workers: Processes a device.
        random_resized_crop: Train on random crops.
        cache: Folder for decoded images.
        seed: Of order and augmentation.

    Raises:
        UserError: An argument is out of its range.
    """

    def __init__(
        self,
        root: str,
        *,
        protocol: Literal["clean", "paper"] = "clean",
        validation_fraction: float = 0.1,
        tokenizer: str = "embedded",
        image_size: int = 64,
        text_length: int = 32,
        batch_size: int = 32,
        num_workers: int = 0,
        random_resized_crop: bool = True,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        if protocol not in ("clean", "paper"):
            raise UserError(f"protocol must be 'clean' or 'paper', not '{protocol}'")
        if not 0 <= validation_fraction < 1:
            raise UserError(f"validation_fraction must be in [0, 1), not {validation_fraction}")
        super().__init__(
            root,
            tokenizer=tokenizer,
            image_size=image_size,
            text_length=text_length,
            batch_size=batch_size,
            num_workers=num_workers,
            random_resized_crop=random_resized_crop,
            cache=cache,
            seed=seed,
        )
        self.protocol = protocol
        self.validation_fraction = validation_fraction
        self._twins_left_out = 0

    @abstractmethod
    def read_published(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """Reads the splits as published, twins marked; a validation split only where it is one of its own."""

    def read(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """The splits under the protocol in use."""
        splits = {name: with_unique_ids(rows, problems) for name, rows in self.read_published(problems).items()}
        if self.protocol == "paper":
            if "validation" not in splits and "test" in splits:
                splits["validation"] = splits["test"]
            return splits
        if "train" in splits:
            published = splits["train"]
            splits["train"] = [record for record in published if not record.has_twin]
            self._twins_left_out = len(published) - len(splits["train"])
            if "validation" not in splits and self.validation_fraction > 0:
                splits["train"], splits["validation"] = carve_by_image(splits["train"], self.validation_fraction)
        return splits

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer vocabulary, most frequent first: of the rows trained on (clean), of all splits (paper).

        Under `paper` the validation split counts only where it is one of its own.
        """
        splits: list[Split] = ["train"]
        if self.protocol == "paper":
            published = self._read()
            splits += ["test"] if "test" in published else []
            if published.get("validation") is not published.get("test"):
                splits += ["validation"] if "validation" in published else []
        return answer_vocabulary(record.answer for split in splits for record in self.records(split))

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

    @property
    def description(self) -> dict[str, str]:
        """Data set, protocol, rows of each split that was used, and what the protocol left out."""
        sizes = super().description
        description = {"data": sizes.pop("data"), "protocol": self.protocol, **sizes}
        if self._twins_left_out:
            description["twins left out of train"] = str(self._twins_left_out)
        if "test" in self._usable and any(record.has_twin for record in self._usable["test"]):
            description["test without twins"] = str(sum(not record.has_twin for record in self._usable["test"]))
        return description
