"""Phantom images with captions, to be classified."""

from __future__ import annotations

from datamodules.arguments import LoaderArguments, Unpack
from datamodules.melinda import MELINDA, Label
from datamodules.phantom.folder import PhantomFolder


class PhantomClassification(MELINDA):
    """Phantom images with captions, to be classified by what they show, in MELINDA's layout.

    "i_meth" is plane and technique ("axial ct", 8 classes), "i_meth_label" the technique alone (3), "p_meth" the
    part of the body with or without lesion (6), "p_meth_label" the part alone (3). The captions do not name the
    technique: "i_meth" needs image and caption, "p_meth" can be read off either.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images; a tenth as many are for validation, and for test.
        phantom_seed: Seed of the images and captions, at least 0.
        label: Column to classify by.
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
        size: int = 900,
        phantom_seed: int = 0,
        label: Label = "i_meth",
        text_length: int = 32,
        **loader: Unpack[LoaderArguments],
    ) -> None:
        self.phantom = PhantomFolder("classification", size, phantom_seed)
        super().__init__(root or str(self.phantom.default_root), label=label, text_length=text_length, **loader)

    def prepare_data(self) -> None:
        """Writes the files unless they are there.

        Raises:
            UserError: `root` holds something else.
        """
        self.phantom.build(self.root)
        super().prepare_data()
