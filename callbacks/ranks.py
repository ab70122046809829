"""What the ranks of one training tell each other."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


def of_all_ranks(mine: T) -> list[T]:
    """What each rank brings, in the order of the ranks, on every rank; all of them must call this."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [mine]
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, mine)
    return everyone
