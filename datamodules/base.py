"""The data module that all data sets share: loaders, tokenizer, state, summary."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from datamodules.arguments import check_least
from datamodules.collate import ImageTextCollate
from datamodules.image_store import ImageStore
from datamodules.loading import (
    EndlessSequence,
    EpochSampler,
    ImageByImageSampler,
    Item,
    ResumableDataLoader,
    WatchedDataLoader,
)
from datamodules.looks import Sample, lengths_table, spread, text_lengths
from datamodules.records import RecordT, Split
from datamodules.splits import Splits
from datamodules.summary import Summary
from datamodules.tokenization import build_tokenizer, tokenizer_from_state, tokenizer_state
from umd.batch import ImageTextBatch

log = logging.getLogger(__name__)

STAGE_SPLITS: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    None: get_args(Split),
}


class ImageTextDataModule(Splits[RecordT], LightningDataModule):
    """Pairs of an image and a text. A data set adds `title`, `layout` and `read`.

    Every image of a split is decoded once before the split is used; rows whose image is missing or cannot be
    read are left out, in one warning that counts them, and `description` keeps the count. So nothing fails in
    the middle of an epoch, and no test row goes unnoticed. Nothing is ever written under `root`.

    Args:
        root: Folder of the data set, in its published layout.
        tokenizer: "embedded" (shipped), or a hub name or local folder for `transformers.AutoTokenizer`.
        image_size: Side of the images in a batch, in pixels.
        text_length: Most tokens of a text, special tokens included.
        batch_size: Samples a batch and device.
        num_workers: Loading processes a device; 0: load in the training process.
        random_resized_crop: Train on random crops of 90 to 100 % of the area (else resize and centre crop).
        augmented_views: Train on so many views of each image, drawn once (turns, crops, light; no flip), so that a
            frozen encoder computes each once, in the place of `random_resized_crop`. 0: on none.
        cache: Folder for what is made of the images (see `ImageStore`), many times quicker to load; with it an image
            is checked once, without it at each start. Pixels are the same, but for random crops and augmented views.
            None: nothing is kept.
        jpeg_draft: Decode JPEGs of more than 2.3 times the image size at a half, quarter or eighth of theirs: quicker,
            and most pixels differ by a grey level or so.
        seed: Of the order and the augmentation of the training split; the splits do not depend on it.

    Attributes:
        predict_split: What `predict_dataloader` gives: "test" unless set.
        rows_per_image: Most training rows of one image that follow each other, with one view of it in a batch; None:
            rows come one by one.

    Raises:
        UserError: A number is out of its range.
    """

    def __init__(
        self,
        root: str,
        *,
        tokenizer: str = "embedded",
        image_size: int = 64,
        text_length: int = 32,
        batch_size: int = 32,
        num_workers: int = 0,
        random_resized_crop: bool = True,
        augmented_views: int = 0,
        cache: str | None = None,
        jpeg_draft: bool = False,
        seed: int = 0,
    ) -> None:
        LightningDataModule.__init__(self)
        check_least(1, image_size=image_size, batch_size=batch_size)
        check_least(3, text_length=text_length)
        check_least(0, num_workers=num_workers, augmented_views=augmented_views, seed=seed)
        self.save_hyperparameters()
        images = ImageStore(
            image_size,
            Path(cache).expanduser() if cache is not None else None,
            random_resized_crop=random_resized_crop,
            augmented=augmented_views > 0,
            jpeg_draft=jpeg_draft,
        )
        Splits.__init__(self, Path(root).expanduser(), images)
        self.tokenizer_name = tokenizer
        self.image_size = image_size
        self.text_length = text_length
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augmented_views = augmented_views
        self.seed = seed
        self.predict_split: Split = "test"
        self.rows_per_image: int | None = None
        self._tokenizer: Any = None
        self._tokenizer_state: dict[str, Any] | None = None

    def make_collate(self) -> Callable[[Sequence[Item[Any]]], ImageTextBatch]:
        """What turns a list of items into a batch."""
        return ImageTextCollate(self.tokenizer, self.text_length)

    def make_sampler(self, dataset: EndlessSequence[RecordT], replicas: int, rank: int) -> EpochSampler:
        """Which rows a training sees in each epoch, and in which order."""
        if self.rows_per_image is None:
            return EpochSampler(dataset, num_replicas=replicas, rank=rank, seed=self.seed)
        rows = self.rows_per_image
        return ImageByImageSampler(dataset, rows_per_image=rows, num_replicas=replicas, rank=rank, seed=self.seed)

    def prepare_data(self) -> None:
        """Fills the image cache, if there is one, in one process a machine."""
        if self.images.cache is not None:
            for split in self._read():
                self.records(split)

    def setup(self, stage: str | None = None) -> None:
        """Reads the splits that the stage needs and checks their images."""
        for split in (self.predict_split,) if stage == "predict" else STAGE_SPLITS[stage]:
            if split == "validation" and stage != "validate" and not self.has_split(split):
                continue
            if stage is None and not self.has_split(split):
                continue
            self.records(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch); the last batch is dropped if it is not the only one."""
        dataset = self._dataset("train", training=True)
        trainer = self.trainer
        sampler = self.make_sampler(
            dataset, trainer.world_size if trainer else 1, trainer.global_rank if trainer else 0
        )
        sampler.set_epoch(trainer.current_epoch if trainer else 0)
        drop_last = sampler.num_samples > self.batch_size
        return ResumableDataLoader(dataset, sampler=sampler, drop_last=drop_last, **self._loader_arguments())

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """In the split's order; an empty list where there is no validation split, or none that says what is true."""
        if not self.has_split("validation"):
            return []
        if self.without_truth("validation") == len(self.records("validation")):
            rank_zero_warn(f"{self.title}: the validation split has no {self.truths}, so nothing is validated")
            return []
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """In the split's order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test split, or what `predict_split` says, in its order."""
        return self._evaluation_loader(self.predict_split)

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers is imported only when it is used
        """The (fast) tokenizer: the one of the checkpoint if one was loaded, else the named one."""
        if self._tokenizer is None:
            state = self._tokenizer_state
            self._tokenizer = tokenizer_from_state(state) if state else build_tokenizer(self.tokenizer_name)
        return self._tokenizer

    @property
    def tokenizer_size(self) -> int:
        """One more than the largest token id."""
        return 1 + int(max(self.tokenizer.get_vocab().values()))

    def state_dict(self) -> dict[str, Any]:
        """The tokenizer in plain types, so that a checkpoint needs neither its folder nor the hub."""
        name = self._tokenizer_state["name"] if self._tokenizer_state else self.tokenizer_name
        return {"tokenizer": tokenizer_state(self.tokenizer, name)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the tokenizer of a checkpoint; says so where another one was asked for."""
        self._tokenizer_state = state = state_dict["tokenizer"]
        self._tokenizer = None
        if state["name"] != self.tokenizer_name:
            log.warning("tokenizer: '%s' from the checkpoint, not '%s'", state["name"], self.tokenizer_name)

    @property
    def description(self) -> dict[str, str]:
        """The data set and the number of rows of each split that was used, for table titles."""
        sizes = {"data": self.title}
        for split, usable in self._usable.items():
            looked_at = self._looked_at[split]
            left_out = f" of {looked_at} (images unusable)" if len(usable) < looked_at else ""
            sizes[split] = f"{len(usable)}{left_out}"
        for split in self._usable:
            if number := self.without_truth(split):
                of = "all" if number == len(self._usable[split]) else f"{number} of {len(self._usable[split])}"
                sizes[f"{split} without {self.truths}"] = f"{of}, not counted"
        return sizes

    def summary(self) -> Summary:
        """What `umd data` shows before anything is trained: here the counts of each split; a task adds to it.

        Raises:
            UserError: The files are not there, or a split has no usable row.
        """
        splits = [split for split in get_args(Split) if self.has_split(split)]
        counts: dict[Split, dict[str, Any]] = {
            split: {
                "rows": len(self.records(split)),
                "image_unusable": self.left_out(split),
                "images": len({record.image for record in self.records(split)}),
            }
            for split in splits
        }
        without = {split: self.without_truth(split) for split in splits}
        if any(without.values()):
            for split in splits:
                counts[split][f"without_{self.truths}"] = without[split]
        lengths = {split: self._text_lengths([record.text for record in self.records(split)]) for split in splits}
        table = lengths_table(lengths, self.tokenizer_name, self.text_length)
        return Summary(counts, facts={"text_lengths": lengths}, tables=[table])

    def samples(self, split: Split, count: int) -> list[Sample]:
        """A few rows of a split, evenly spread, as they are and as a training gets them.

        Raises:
            UserError: As in `records`.
        """
        records, dataset = self.records(split), self._dataset(split, training=True)
        return [
            Sample(
                sample_id=records[place].sample_id,
                image_name=records[place].image,
                told=self.told(records[place]),
                original=self.images.original(self._check.files[records[place].image]),
                image=(item := dataset[place]).image,
                tokens=tuple(self.tokenizer.convert_ids_to_tokens(self._token_ids(item.text))),
            )
            for place in spread(count, len(records))
        ]

    def told(self, record: RecordT) -> str:
        """What a row says of its image, for a caption."""
        return record.text

    def _token_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.text_length)["input_ids"]
        return ids

    def _text_lengths(self, texts: Sequence[str]) -> dict[str, Any]:
        return text_lengths(self.tokenizer, texts, self.text_length)

    def _dataset(self, split: Split, *, training: bool) -> EndlessSequence[RecordT]:
        records = self.records(split)
        return EndlessSequence(
            records,
            {record.image: self._check.files[record.image] for record in records},
            partial(self.images.load, training=training),
            self.images.transform(training=training),
            seed=self.seed,
            vary_text=training,
            one_view=not self.images.varies(training=training) or self.rows_per_image is not None,
            views=(self.augmented_views if training else 0) or None,
        )

    def _evaluation_loader(self, split: Split) -> DataLoader[Any]:
        return WatchedDataLoader(self._dataset(split, training=False), shuffle=False, **self._loader_arguments())

    def _loader_arguments(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": self.make_collate(),
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "generator": torch.Generator().manual_seed(self.seed),
        }
