"""Phantom images with captions, for retrieval."""

from __future__ import annotations

from datamodules.arguments import LoaderArguments, Unpack
from datamodules.phantom.folder import PhantomFolder
from datamodules.roco import ROCORetrieval


class PhantomRetrieval(ROCORetrieval):
    """Phantom images with captions, for retrieval. Several images may show the same, so no recall reaches 100 %.

    The files are those of `PhantomCaptions`.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images; a tenth as many are for validation, and for test.
        phantom_seed: Seed of the images and captions, at least 0.
        negatives: Texts of other pairs that a training pair comes with.
        text_length: Most tokens of a caption.
        **loader: As in `ImageTextDataModule`. The images have 128 x 128 pixels; `seed` is that of the choice of
            negatives too, not that of the data: several seeds share one phantom.

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
        negatives: int = 15,
        text_length: int = 32,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        self.phantom = phantom = PhantomFolder("captions", size, phantom_seed)
        super().__init__(
            root or str(phantom.default_root),
            negatives=negatives,
            validation_pairs=phantom.held_out,
            test_pairs=phantom.held_out,
            minimum_words=3,
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
