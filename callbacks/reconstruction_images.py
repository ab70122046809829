"""What masked pre-training rebuilds, as pictures in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageDraw
from torch import Tensor

from umd.files import UserError
from umd.protocols import HasReconstructions

COLUMNS = ("input", "hidden", "rebuilt")
SIDE = 128
"""Least side of a shown image in pixels; smaller ones are magnified by a whole number."""

_GAP = 4
_LINE = 16  # height of a line of text


def reconstruction_sheet(image: Tensor, masked: Tensor, reconstruction: Tensor, names: Sequence[str]) -> Tensor:
    """A row a sample: input, masked input and reconstruction, under a line that says so, each with its name below.

    Args:
        image: (B, 3, H, W) float in 0..1.
        masked: (B, 3, H, W) float in 0..1.
        reconstruction: (B, 3, H, W) float; clamped to 0..1.
        names: B names.

    Returns:
        (3, T, U) uint8 on the CPU. An image is k H high and k W wide, with the least k that makes both at least 128;
        the left upper corner of that in row r and column c is at `corner(r, c, k H, k W)`.
    """
    rows = torch.stack((image, masked, reconstruction), dim=1).detach().float().clamp(0, 1).cpu()
    factor = max(-(-SIDE // min(rows.shape[-2:])), 1)
    pictures = (rows * 255).round().to(torch.uint8)
    pictures = pictures.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    samples, columns, _, height, width = pictures.shape
    bottom, right = corner(samples, columns, height, width)
    sheet = Image.new("RGB", (right, bottom), "white")
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(COLUMNS):
        pen.text((corner(0, column, height, width)[1], _GAP), label, fill="black")
    for row, name in enumerate(names):
        for column, picture in enumerate(pictures[row]):
            top, left = corner(row, column, height, width)
            sheet.paste(Image.fromarray(picture.permute(1, 2, 0).numpy()), (left, top))
        pen.text((corner(row, 0, height, width)[1], top + height + 1), name, fill="black")
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def corner(row: int, column: int, height: int, width: int) -> tuple[int, int]:
    """Top and left of an image of the sheet, in pixels."""
    return _LINE + _GAP + row * (height + _LINE + _GAP), _GAP + column * (width + _GAP)


class ReconstructionImages(Callback):
    """Shows some reconstructions of the first validation batch in every TensorBoard logger of the trainer.

    Only while fitting, never in the sanity check, and only on rank 0, so the module's `reconstruct` must not
    exchange with other ranks. Training does not notice: no gradients are kept, and the state of PyTorch's
    random generators (CPU and CUDA) is put back, since `reconstruct` draws a mask on one rank alone.

    Args:
        every_n_epochs: show them in the epochs 0, n, 2n and so on, once an epoch.
        images: number of samples to show; fewer if the batch is smaller.

    Raises:
        UserError: an argument is below 1.
    """

    def __init__(self, every_n_epochs: int = 1, images: int = 4) -> None:
        super().__init__()
        if every_n_epochs < 1:
            raise UserError(f"every_n_epochs: must be at least 1, got {every_n_epochs}")
        if images < 1:
            raise UserError(f"images: must be at least 1, got {images}")
        self.every_n_epochs = every_n_epochs
        self.images = images
        self._last_epoch = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that cannot reconstruct.

        Raises:
            UserError: the module does not meet `umd.protocols.HasReconstructions`.
        """
        _reconstructing(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where there is no logger to show images in."""
        self._last_epoch = -1
        # A fast_dev_run takes every logger away: nothing that the user could mend.
        if not _boards(trainer) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn("ReconstructionImages: trainer.logger has no TensorBoardLogger, no images are shown")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the images of the first batch of an epoch that is due."""
        if batch_idx or dataloader_idx or not self._is_due(trainer):
            return
        boards = _boards(trainer)
        if not boards:
            return
        self._last_epoch = trainer.current_epoch
        forked = [pl_module.device] if pl_module.device.type == "cuda" else []
        with (
            torch.random.fork_rng(forked, device_type="cuda"),
            torch.no_grad(),
            trainer.precision_plugin.forward_context(),
        ):
            pictures = _reconstructing(pl_module).reconstruct(batch)
        if pictures is None:
            return
        image, masked, reconstruction = (images[: self.images] for images in pictures)
        names = getattr(batch, "image_names", None) or [f"sample {number}" for number in range(len(image))]
        sheet = reconstruction_sheet(image, masked, reconstruction, names[: len(image)])
        for board in boards:
            board.experiment.add_image("reconstruction", sheet, global_step=trainer.global_step)

    def _is_due(self, trainer: Trainer) -> bool:
        return (
            trainer.is_global_zero
            and trainer.state.fn == TrainerFn.FITTING
            and not trainer.sanity_checking
            and trainer.current_epoch != self._last_epoch
            and trainer.current_epoch % self.every_n_epochs == 0
        )


def _boards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _reconstructing(module: LightningModule) -> HasReconstructions:
    if not isinstance(module, HasReconstructions):
        raise UserError(
            f"ReconstructionImages: {type(module).__name__} has no method reconstruct(batch) "
            "(umd.protocols.HasReconstructions). Take ReconstructionImages out of trainer.callbacks."
        )
    return module
