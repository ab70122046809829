"""The embedded data for classification and retrieval, in MELINDA's and in ROCO's layout; see `phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from datamodules.melinda import MELINDA, Label
from datamodules.phantom import check_arguments, default_root
from datamodules.phantom_files import VERSION, build_once, write_melinda, write_roco
from datamodules.phantom_studies import draw_splits
from datamodules.roco_retrieval import ROCORetrieval


class PhantomClassification(MELINDA):
    """Phantom images with captions, to be classified by what they show.

    "i_meth" is plane and technique ("axial ct", 8 classes), "i_meth_label" the technique alone (3), "p_meth" the
    part of the body with or without lesion (6), "p_meth_label" the part alone (3). The captions do not name the
    technique: "i_meth" needs image and caption, "p_meth" can be read off either.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images; a tenth as many are for validation, and for test.
        phantom_seed: Seed of the images and captions, at least 0.
        label: Column to classify by.
        tokenizer: As in `ImageTextDataModule`, like all that follow.
        image_size: Pixels; the files have 128 x 128.
        text_length: Tokens.
        batch_size: Samples a device.
        num_workers: Processes a device.
        random_resized_crop: Train on random crops.
        cache: Folder for decoded images.
        seed: Of order and augmentation (not of the data: several seeds share one phantom).

    Raises:
        ValueError: An argument is out of its range.
    """

    title: ClassVar[str] = "phantom"

    def __init__(
        self,
        root: str | None = None,
        *,
        size: int = 900,
        phantom_seed: int = 0,
        label: Label = "i_meth",
        tokenizer: str = "embedded",
        image_size: int = 64,
        text_length: int = 32,
        batch_size: int = 32,
        num_workers: int = 0,
        random_resized_crop: bool = True,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        check_arguments(size, phantom_seed)
        super().__init__(
            root or str(default_root(f"classification-{size}-{phantom_seed}-v{VERSION}")),
            label=label,
            tokenizer=tokenizer,
            image_size=image_size,
            text_length=text_length,
            batch_size=batch_size,
            num_workers=num_workers,
            random_resized_crop=random_resized_crop,
            cache=cache,
            seed=seed,
        )
        self.size = size
        self.phantom_seed = phantom_seed

    def prepare_data(self) -> None:
        """Writes the files unless they are there.

        Raises:
            FileExistsError: `root` holds something else.
        """
        seed = self.phantom_seed

        def write(folder: Path) -> None:
            held_out = max(self.size // 10, 1)
            sizes = {"train": self.size, "validation": held_out, "test": held_out}
            write_melinda(draw_splits(sizes, seed), folder, seed=seed)

        build_once(self.root, {"phantom": "classification", "size": self.size, "seed": seed}, write)
        super().prepare_data()


class PhantomRetrieval(ROCORetrieval):
    """Phantom images with captions, for retrieval. Several images may show the same, so no recall reaches 100 %.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images; a tenth as many are for validation, and for test.
        phantom_seed: Seed of the images and captions, at least 0.
        negatives: Texts of other pairs that a training pair comes with.
        tokenizer: As in `ImageTextDataModule`, like all that follow.
        image_size: Pixels; the files have 128 x 128.
        text_length: Tokens.
        batch_size: Samples a device.
        num_workers: Processes a device.
        random_resized_crop: Train on random crops.
        cache: Folder for decoded images.
        seed: Of order, augmentation and negatives (not of the data: several seeds share one phantom).

    Raises:
        ValueError: An argument is out of its range.
    """

    title: ClassVar[str] = "phantom"

    def __init__(
        self,
        root: str | None = None,
        *,
        size: int = 1000,
        phantom_seed: int = 0,
        negatives: int = 15,
        tokenizer: str = "embedded",
        image_size: int = 64,
        text_length: int = 32,
        batch_size: int = 32,
        num_workers: int = 0,
        random_resized_crop: bool = True,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        check_arguments(size, phantom_seed)
        held_out = max(size // 10, 1)
        super().__init__(
            root or str(default_root(f"captions-{size}-{phantom_seed}-v{VERSION}")),
            negatives=negatives,
            validation_pairs=held_out,
            test_pairs=held_out,
            tokenizer=tokenizer,
            image_size=image_size,
            text_length=text_length,
            batch_size=batch_size,
            num_workers=num_workers,
            random_resized_crop=random_resized_crop,
            cache=cache,
            seed=seed,
        )
        self.size = size
        self.phantom_seed = phantom_seed

    def prepare_data(self) -> None:
        """Writes the files unless they are there.

        Raises:
            FileExistsError: `root` holds something else.
        """
        seed = self.phantom_seed

        def write(folder: Path) -> None:
            held_out = max(self.size // 10, 1)
            sizes = {"train": self.size, "validation": held_out, "test": held_out}
            write_roco(draw_splits(sizes, seed), folder, seed=seed)

        build_once(self.root, {"phantom": "captions", "size": self.size, "seed": seed}, write)
        super().prepare_data()
