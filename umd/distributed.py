"""What the ranks of one training tell each other; without ranks, nothing happens."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.autograd import Function

T = TypeVar("T")


def rank_and_ranks() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class _Gather(Function):
    """All ranks' rows forward; backward, the sum over ranks of the gradients of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401
        ctx.rows = len(tensor)
        rows = tensor.contiguous()
        received = [torch.empty_like(rows) for _ in range(rank_and_ranks()[1])]
        distributed.all_gather(received, rows)
        return torch.cat(received)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        total = gradients[0].contiguous().clone()  # reduced in place
        distributed.all_reduce(total)
        first = rank_and_ranks()[0] * ctx.rows
        return total[first : first + ctx.rows]


def gather(tensor: Tensor) -> Tensor:
    """The rows of all ranks in the order of the ranks, (B, ...) -> (W * B, ...), with their gradients.

    A rank's rows receive the sum of the gradients that all ranks have for them, so that gradients averaged over
    ranks are those of the mean loss. Every rank must bring the same shape.
    """
    if rank_and_ranks()[1] == 1:
        return tensor
    if tensor.dtype == torch.bool:  # which gloo does not know
        return gather(tensor.byte()).bool()
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def largest(number: int, device: torch.device) -> int:
    """The largest of all ranks' numbers."""
    if rank_and_ranks()[1] == 1:
        return number
    shared = torch.tensor(number, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)
