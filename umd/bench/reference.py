"""A plain step of a plain transformer: the yardstick beside which a training's own steps are timed."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from umd.bench.profiler import REFERENCE, TEACHER, CostProfiler

_MEGABYTE = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of `ru_maxrss`, which counts bytes there, kB elsewhere


class PlainStep:
    """Forward, backward and AdamW of `torch.nn.TransformerEncoder`, as anybody would write it down.

    It is made of torch's own layers alone, so that no change of this project changes it.

    Args:
        width: size of a token.
        layers: of 4 x width feed-forward, GELU, dropout 0.1.
        heads: attention heads.
        tokens: of one sample.
        samples: of one step.
    """

    def __init__(self, width: int, layers: int, heads: int, tokens: int, samples: int) -> None:
        generator = torch.Generator().manual_seed(0)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.1, "gelu", batch_first=True)
        self.network = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, foreach=False)
        self.inputs = torch.randn(samples, tokens, width, generator=generator)

    def __call__(self) -> Tensor:
        """One step; the loss."""
        loss: Tensor = self.network(self.inputs).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


class Reference(Callback):
    """After each training step one step of the reference; FLOPs of the first step of both, and the peak of memory.

    Args:
        width: as in `PlainStep`.
        layers: as there; 0 times no reference, so that the peak of memory is the training's own.
        heads: as there.
        tokens: as there.
        samples: as there.
    """

    def __init__(self, width: int, layers: int, heads: int, tokens: int, samples: int) -> None:
        self.shape = (width, layers, heads, tokens, samples)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Build the reference without a trace in the training's random numbers, and time the teacher by itself."""
        self.profiler = profiler = trainer.profiler  # type: ignore[attr-defined]
        assert isinstance(profiler, CostProfiler)
        if stage != "fit":
            return
        if self.shape[1]:
            with torch.random.fork_rng():
                self.step = PlainStep(*self.shape)
        self.counter: FlopCounterMode | None = FlopCounterMode(display=False)
        for part in getattr(pl_module, "teacher", nn.Module()).children():
            part.register_forward_pre_hook(_calls(profiler.start))
            part.register_forward_hook(_calls(profiler.stop))

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401
        """Count the first step's FLOPs; its time is that of warming up, which nothing reads."""
        if self.counter is not None:
            self.counter.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401
        """One step of the reference."""
        counted = self.counter
        if counted is not None:
            counted.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self.profiler.facts["flops"] = counted.get_total_flops()
            self.counter = None
        if self.shape[1]:
            with self.profiler.profile(REFERENCE), torch.random.fork_rng():
                if counted is None:
                    self.step()
                else:
                    with FlopCounterMode(display=False) as counter:
                        self.step()
                    self.profiler.facts["reference_flops"] = counter.get_total_flops()

    def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
        """The most memory that the process has held."""
        self.profiler.facts["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MEGABYTE


def _calls(timing: Callable[[str], None]) -> Callable[..., None]:
    return lambda *_: timing(TEACHER)
