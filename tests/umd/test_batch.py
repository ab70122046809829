"""How batches travel between devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from tests.synthetic import vqa_batch
from umd.batch import VQABatch


@pytest.mark.parametrize(("device", "waited_for"), [("cuda", False), ("mps", True), ("cpu", True)])
def test_nobody_waits_for_a_copy_to_an_accelerator(
    device: str, waited_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.device, bool]] = []

    def to(tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        asked.append((device, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "to", to)
    move_data_to_device(vqa_batch(), torch.device(device))
    assert len(asked) == 10  # every tensor of the batch
    assert set(asked) == {(torch.device(device), not waited_for)}


def test_the_loader_locks_a_batch_in_memory_and_leaves_the_rest_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []

    def pin(tensor: Tensor, *_: Any) -> Tensor:  # noqa: ANN401
        pinned.append(tensor)
        return tensor + 0

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    batch = vqa_batch()
    locked = pin_memory(batch)  # type: ignore[no-untyped-call]
    assert type(locked) is VQABatch
    assert len(pinned) == 10
    assert locked.image is not batch.image
    assert torch.equal(locked.image, batch.image)
    assert (locked.texts, locked.mask_token_id) == (batch.texts, batch.mask_token_id)
