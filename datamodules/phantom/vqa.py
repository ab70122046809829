"""Questions about phantom images."""

from __future__ import annotations

from datamodules.arguments import Unpack
from datamodules.phantom.folder import PhantomFolder
from datamodules.vqa import VQAArguments
from datamodules.vqa_rad import VQARAD


class PhantomVQA(VQARAD):
    """Questions about phantom images, in VQA-RAD's original layout.

    Neither the question nor the image answers alone: within one question text all answers are about equally
    frequent, and an image gets several questions with different answers.

    Args:
        root: Folder to write to, or that holds this phantom already; None: one in the user's cache.
        size: Number of training images, with six questions each; a sixth as many are for test.
        phantom_seed: Seed of the images and questions, at least 0.
        **vqa: As in `VQADataModule`. The images have 128 x 128 pixels; `seed` is not that of the data: several
            seeds share one phantom.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "phantom"

    def __init__(
        self, root: str | None = None, *, size: int = 900, phantom_seed: int = 0, **vqa: Unpack[VQAArguments]
    ) -> None:
        self.phantom = PhantomFolder("vqa", size, phantom_seed)
        super().__init__(root or str(self.phantom.default_root), annotations="single", **vqa)

    def prepare_data(self) -> None:
        """Writes the files unless they are there.

        Raises:
            UserError: `root` holds something else.
        """
        self.phantom.build(self.root)
        super().prepare_data()
