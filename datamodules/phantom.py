"""The embedded data: radiology-like drawings with questions or captions, for runs without any download.

`phantom_studies` says what an image shows, `phantom_images` draws it, `phantom_text` asks and describes,
`phantom_files` writes the published layouts. The classes here write the files once and then read them with the
code that reads the real data. Left and right are sides of the image. Train and test share no image, unlike in
VQA-RAD.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from datamodules.captions import RadiologyCaptions
from datamodules.phantom_files import VERSION, build_once, write_roco, write_vqa_rad
from datamodules.phantom_studies import draw_splits
from datamodules.vqa_rad import VQARAD
from umd.files import UserError


def default_root(name: str) -> Path:
    """The folder of a phantom in the user's cache: below $UMD_CACHE, else below ~/.cache/umd."""
    return Path(os.environ.get("UMD_CACHE") or "~/.cache/umd").expanduser() / "phantom" / name


class PhantomVQA(VQARAD):
    """Questions about phantom images, in VQA-RAD's original layout.

    Neither the question nor the image answers alone: within one question text all answers are about equally
    frequent, and an image gets several questions with different answers.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images, with six questions each; a sixth as many are for test.
        phantom_seed: Seed of the images and questions, at least 0.
        protocol: As in `VQARAD`, like all that follow.
        validation_fraction: Share of the training images held out under `clean`.
        tokenizer: Name or folder.
        image_size: Pixels; the files have 128 x 128.
        text_length: Tokens.
        batch_size: Samples a device.
        num_workers: Processes a device.
        random_resized_crop: Train on random crops.
        cache: Folder for decoded images.
        seed: Of order and augmentation (not of the data: several seeds share one phantom).

    Raises:
        UserError: An argument is out of its range.
    """

    title: ClassVar[str] = "phantom"

    def __init__(
        self,
        root: str | None = None,
        *,
        size: int = 900,
        phantom_seed: int = 0,
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
        check_arguments(size, phantom_seed)
        super().__init__(
            root or str(default_root(f"vqa-{size}-{phantom_seed}-v{VERSION}")),
            annotations="single",
            protocol=protocol,
            validation_fraction=validation_fraction,
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
            UserError: `root` holds something else.
        """
        seed = self.phantom_seed

        def write(folder: Path) -> None:
            splits = draw_splits({"train": self.size, "test": max(self.size // 6, 1)}, seed)
            write_vqa_rad(splits, folder, seed=seed)

        build_once(self.root, {"phantom": "vqa", "size": self.size, "seed": seed}, write)
        super().prepare_data()


class PhantomCaptions(RadiologyCaptions):
    """Phantom images with captions, in ROCO's layout.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images; a tenth as many are for validation, and for test.
        phantom_seed: Seed of the images and captions, at least 0.
        tokenizer: As in `ImageTextDataModule`, like all that follow.
        image_size: Pixels; the files have 128 x 128.
        text_length: Tokens.
        batch_size: Samples a device.
        num_workers: Processes a device.
        random_resized_crop: Train on random crops.
        cache: Folder for decoded images.
        seed: Of order and augmentation (not of the data: several seeds share one phantom).

    Raises:
        UserError: An argument is out of its range.
    """

    title: ClassVar[str] = "phantom"

    def __init__(
        self,
        root: str | None = None,
        *,
        size: int = 1000,
        phantom_seed: int = 0,
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
            roco_root=root or str(default_root(f"captions-{size}-{phantom_seed}-v{VERSION}")),
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
            UserError: `root` holds something else.
        """
        seed = self.phantom_seed

        def write(folder: Path) -> None:
            held_out = max(self.size // 10, 1)
            sizes = {"train": self.size, "validation": held_out, "test": held_out}
            write_roco(draw_splits(sizes, seed), folder, seed=seed)

        build_once(self.root, {"phantom": "captions", "size": self.size, "seed": seed}, write)
        super().prepare_data()

    @property
    def description(self) -> dict[str, str]:
        """The data set and the number of rows of each split that was used."""
        return {**super().description, "data": self.title}


def check_arguments(size: int, phantom_seed: int) -> None:
    """Checks the arguments that all phantoms have.

    Raises:
        UserError: One is out of its range.
    """
    for argument, value, least in (("size", size, 2), ("phantom_seed", phantom_seed, 0)):
        if value < least:
            raise UserError(f"{argument} must be at least {least}, not {value}")
