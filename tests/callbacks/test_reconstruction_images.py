from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from callbacks.reconstruction_images import ReconstructionImages, corner, reconstruction_sheet
from umd.files import UserError

SIZE = 6
SHOWN = 132  # the least multiple of it that has 128 pixels
DATA = torch.rand(10, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


class Autoencoder(LightningModule):
    """Draws its mask from the global generator, as the least careful module would."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)
        self.calls: list[tuple[int, bool, bool]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return functional.mse_loss(self.layer(batch * torch.rand_like(batch)), batch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("error", functional.mse_loss(self.layer(batch * torch.rand_like(batch)), batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def reconstruct(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls.append((self.current_epoch, self.training, torch.is_grad_enabled()))
        masked = batch * (torch.rand_like(batch[:, :1]) > 0.5)
        return batch, masked, self.layer(masked)


def fit(
    module: LightningModule,
    folder: Path,
    callback: ReconstructionImages | None,
    epochs: int = 2,
    **arguments: Any,  # noqa: ANN401
) -> Trainer:
    loader = DataLoader(cast(Any, DATA), batch_size=5)
    options: dict[str, Any] = {"logger": TensorBoardLogger(folder, name="", version="")} | arguments
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        callbacks=[] if callback is None else [callback],
        **options,
    )
    trainer.fit(module, loader, loader)
    return trainer


def logged(folder: Path) -> list[Any]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    tags: list[str] = events.Tags()["images"]
    assert set(tags) <= {"reconstruction"}
    return list(events.Images("reconstruction")) if tags else []


def test_a_sheet_shows_each_image_large_and_says_what_it_is() -> None:
    image, masked = torch.rand(2, 3, 50, 40), torch.zeros(2, 3, 50, 40)
    sheet = reconstruction_sheet(image, masked, torch.full_like(image, 7.0), ["a.png", "b.png"])
    height, width = 4 * 50, 4 * 40  # the least factor with which both sides have 128 pixels
    assert sheet.shape == (3, *corner(2, 3, height, width))
    wanted = {0: (image * 255).round(), 1: masked, 2: torch.full_like(image, 255)}
    background = torch.ones(sheet.shape[1:], dtype=torch.bool)
    for row, column in itertools.product(range(2), range(3)):
        top, left = corner(row, column, height, width)
        shown = sheet[:, top : top + height, left : left + width]
        assert torch.equal(shown[:, 2::4, 2::4].float(), wanted[column][row])
        assert torch.equal(shown[:, ::4, ::4], shown[:, 3::4, 3::4])
        background[top : top + height, left : left + width] = False
        label = sheet[:, top + height : top + height + 12, left : left + width]
        assert bool(label.min() < 128) == (column == 0), "the sample's name, below the first"
    first = corner(0, 0, height, width)[0]
    for column in range(3):
        left = corner(0, column, height, width)[1]
        assert sheet[:, :first, left : left + width].min() < 128, "what the column shows, on top"
    assert sheet[:, background].float().mean() > 230, "the rest is white"


def test_images_are_logged_once_an_epoch_that_is_due_and_never_in_the_sanity_check(tmp_path: Path) -> None:
    module = Autoencoder()
    callback = ReconstructionImages(every_n_epochs=2, images=4)
    fit(module, tmp_path, callback, epochs=4, num_sanity_val_steps=2, val_check_interval=0.5)
    assert module.calls == [(0, False, False), (2, False, False)]
    images = logged(tmp_path)
    assert [image.step for image in images] == [1, 5]
    assert [(image.height, image.width) for image in images] == [corner(4, 3, SHOWN, SHOWN)] * 2


def test_a_small_batch_gives_fewer_rows(tmp_path: Path) -> None:
    fit(Autoencoder(), tmp_path, ReconstructionImages(images=32), epochs=1)
    assert [image.height for image in logged(tmp_path)] == [corner(5, 3, SHOWN, SHOWN)[0]]


def test_training_does_not_notice(tmp_path: Path) -> None:
    outcomes = []
    for callback in (None, ReconstructionImages()):
        seed_everything(3, verbose=False)
        module = Autoencoder()
        trainer = fit(module, tmp_path / str(callback is None), callback)
        outcomes.append((module.state_dict(), trainer.callback_metrics, torch.get_rng_state()))
        assert len(module.calls) == (0 if callback is None else 2)
    (weights, metrics, rng), (weights_with, metrics_with, rng_with) = outcomes
    assert all(torch.equal(weights[name], weights_with[name]) for name in weights)
    assert metrics == metrics_with
    assert torch.equal(rng, rng_with)


def test_nothing_is_shown_outside_of_fit(tmp_path: Path) -> None:
    module = Autoencoder()
    trainer = Trainer(
        logger=TensorBoardLogger(tmp_path, name="", version=""),
        accelerator="cpu",
        enable_progress_bar=False,
        callbacks=[ReconstructionImages()],
    )
    trainer.validate(module, DataLoader(cast(Any, DATA), batch_size=5), verbose=False)
    assert module.calls == []


def test_every_tensorboard_logger_gets_the_images(tmp_path: Path) -> None:
    loggers = [
        TensorBoardLogger(tmp_path / "a", name="", version=""),
        CSVLogger(tmp_path / "b"),
        TensorBoardLogger(tmp_path / "c", name="", version=""),
    ]
    fit(Autoencoder(), tmp_path, ReconstructionImages(), epochs=1, logger=loggers)
    assert len(logged(tmp_path / "a")) == len(logged(tmp_path / "c")) == 1


def test_without_tensorboard_there_is_one_warning_and_no_work(tmp_path: Path) -> None:
    module = Autoencoder()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, tmp_path, ReconstructionImages(), logger=False)
    assert sum("no TensorBoardLogger" in str(warning.message) for warning in caught) == 1
    assert module.calls == []


def test_a_module_that_cannot_reconstruct_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="BoringModel has no method reconstruct"):
        fit(BoringModel(), tmp_path, ReconstructionImages())


@pytest.mark.parametrize("arguments", [{"every_n_epochs": 0}, {"images": 0}])
def test_arguments_below_one_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ReconstructionImages(**arguments)
