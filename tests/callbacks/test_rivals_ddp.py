"""The rivals of both papers' callbacks in two processes: what one process does with both halves of each batch."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, distributed, multiprocessing
from torch.utils.data import DataLoader, TensorDataset

from callbacks import AdaptiveModulation, GradientModulation, SharpnessAware, WeightNoise
from tests.callbacks.test_modality_coordination import TwoTowers, samples
from tests.callbacks.test_weight_perturbation import Regressor, batches

RIVALS: dict[str, tuple[Callable[[], LightningModule], Callable[[], Callback]]] = {
    "OGM-GE": (TwoTowers, lambda: GradientModulation(0.8)),
    "AGM": (TwoTowers, lambda: AdaptiveModulation(2.0)),
    "SAM": (TwoTowers, SharpnessAware),
    "ASAM": (TwoTowers, lambda: SharpnessAware(0.5, adaptive=True)),
    "noise": (Regressor, lambda: WeightNoise(["trunk"])),
}
RANKS, STEPS = 2, 3


def given(module: LightningModule) -> list[list[Tensor]]:
    """Batches of an even number of rows."""
    if isinstance(module, TwoTowers):
        return [[column[4 * step : 4 * step + 4] for column in samples()] for step in range(STEPS)]
    return [[column[:4] for column in batch] for batch in batches(STEPS)]


def trained(name: str, rank: int, ranks: int) -> dict[str, Tensor]:
    make, callback = RIVALS[name]
    module = make()
    rows = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
    columns = [torch.cat([column[rows] for column in parts]) for parts in zip(*given(module), strict=True)]
    settings: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    settings |= {"enable_model_summary": False, "max_epochs": 1, "accelerator": "cpu", "use_distributed_sampler": False}
    strategy = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {"devices": 1}
    trainer = Trainer(callbacks=[callback()], **settings, **strategy)
    trainer.fit(module, DataLoader(TensorDataset(*columns), batch_size=4 // ranks))
    assert trainer.global_step == STEPS
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def on_rank(rank: int, root: str, port: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    torch.save({name: trained(name, rank, RANKS) for name in RIVALS}, Path(root) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("rivals")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(on_rank, (str(folder), port), nprocs=RANKS)  # type: ignore[attr-defined, no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", RIVALS)
def test_two_processes_do_what_one_does_with_both_halves(name: str, ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    alone = trained(name, 0, 1)
    for key, value in alone.items():
        assert torch.equal(ranks[0][name][key], ranks[1][name][key]), key
        torch.testing.assert_close(ranks[0][name][key], value, rtol=1e-4, atol=1e-6)
