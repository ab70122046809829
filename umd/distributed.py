"""What the ranks of one training tell each other; without ranks, nothing happens."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def rank_and_ranks() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather(tensor: Tensor) -> Tensor:
    """The rows of all ranks in the order of the ranks, (B, ...) -> (W * B, ...), with their gradients.

    A rank's rows receive the sum of the gradients that all ranks have for them, so that gradients averaged over
    ranks are those of the mean loss. Every rank must bring the same shape.
    """
    ranks = rank_and_ranks()[1]
    if ranks == 1:
        return tensor
    if tensor.requires_grad:
        parts: tuple[Tensor, ...] = all_gather(tensor.contiguous())  # type: ignore[no-untyped-call]
        return torch.cat(parts)
    if tensor.dtype == torch.bool:  # which gloo does not know
        return gather(tensor.byte()).bool()
    received = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(ranks)]
    distributed.all_gather(received, tensor.contiguous())
    return torch.cat(received)


def largest(number: int, device: torch.device) -> int:
    """The largest of all ranks' numbers."""
    if rank_and_ranks()[1] == 1:
        return number
    shared = torch.tensor(number, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)
