"""Phantom images with captions."""

from __future__ import annotations

from datamodules.arguments import LoaderArguments, Unpack
from datamodules.phantom.folder import PhantomFolder
from datamodules.radiology_captions import RadiologyCaptions


class PhantomCaptions(RadiologyCaptions):
    """Phantom images with captions, in ROCO's layout.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images; a tenth as many are for validation, and for test.
        phantom_seed: Seed of the images and captions, at least 0.
        text_length: Most tokens of a caption.
        **loader: As in `ImageTextDataModule`. The images have 128 x 128 pixels; `seed` is not that of the data:
            several seeds share one phantom.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "phantom"

    def __init__(
        self,
        root: str | None = None,
        *,
        size: int = 1000,
        phantom_seed: int = 0,
        text_length: int = 32,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        self.phantom = PhantomFolder("captions", size, phantom_seed)
        super().__init__(
            None,
            roco_root=root or str(self.phantom.default_root),
            medicat_root=None,
            radiology_only=False,
            inline_references=True,
            text_length=text_length,
            **loader,
        )

    def prepare_data(self) -> None:
        """Writes the files unless they are there.

        Raises:
            UserError: `root` holds something else.
        """
        self.phantom.build(self.root)
        super().prepare_data()

    @property
    def description(self) -> dict[str, str]:
        """The data set and the number of rows of each split that was used."""
        return {**super().description, "data": self.title}
