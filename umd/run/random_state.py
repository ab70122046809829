"""The state of the global random number generators, and its form as plain data for a checkpoint."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RandomState:
    """The generators of python, numpy and torch in one process. Taking it costs microseconds.

    Attributes:
        python: of `random`.
        numpy: of `numpy.random`.
        torch: of the CPU, uint8.
        cuda: of the current device, uint8; None without one.
    """

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    torch: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls) -> RandomState:
        """The state at this moment."""
        numpy = np.random.get_state(legacy=False)
        assert isinstance(numpy, dict)
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def plain(self) -> dict[str, Any]:
        """Numbers, lists and tensors alone, as a weights-only reader knows them."""
        version, words, gaussian = self.python
        key = torch.from_numpy(self.numpy["state"]["key"].astype(np.int64))
        position, held, cached = self.numpy["state"]["pos"], self.numpy["has_gauss"], self.numpy["gauss"]
        return {
            "python": [version, torch.tensor(words), gaussian],
            "numpy": [key, int(position), int(held), float(cached)],
            "torch": self.torch,
            "cuda": self.cuda,
        }


def restore_random_state(plain: dict[str, Any]) -> None:
    """Put back what `RandomState.plain` gave; that of a device which is not there is passed over."""
    version, words, gaussian = plain["python"]
    random.setstate((version, tuple(words.tolist()), gaussian))
    key, position, held, cached = plain["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), position, held, cached))
    torch.set_rng_state(plain["torch"])
    if plain["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(plain["cuda"])


def seed_afresh(*key: int) -> None:
    """Seed all of them from numbers, such as a step and a rank."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
