"""Stops a training, or skips a step, where a loss or a gradient is no longer a number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, distributed
from torch.optim import Optimizer

from umd.files import UserError, gather_objects
from umd.protocols import HasTerms

OnFault = Literal["stop", "skip"]

SHOWN = 32
"""Most samples that a message lists of one micro-batch."""


class NumericalFaultError(UserError):
    """A loss, a gradient or a weight is nan or infinite."""


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether no tensor holds nan or an infinity: a bool scalar on the first one's device, without waiting for it.

    Values whose squares overflow float32 (above 1e19) count as infinite, as they would be for Adam.

    Args:
        tensors: Real floating-point tensors of any shapes, on any devices, dense or sparse.
    """
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        alike[tensor.device, tensor.dtype].append(tensor._values() if tensor.is_sparse else tensor)
    found: list[Tensor] = []
    for (_, dtype), group in alike.items():
        norms = torch._foreach_norm(group, 2, torch.promote_types(dtype, torch.float32))
        found.append(torch.stack(norms).isfinite().all())
    if not found:
        return torch.tensor(True)
    return torch.stack([one.to(found[0].device) for one in found]).all()


@dataclass
class _MicroBatch:
    """What is remembered of a micro-batch until its optimizer step is through."""

    samples: Sequence[str]
    loss: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class FiniteGuard(Callback):
    """Lets no nan and no infinity into the weights, and says where one came from.

    Looks at every micro-batch's loss, and at the gradients before every optimizer step, which takes one transfer
    from the device a step. Where something is not finite on any rank, all ranks stop, or skip this step, together.
    The message names the step, the loss terms (if the module meets `umd.protocols.HasTerms`), the parameters, the
    samples (if the batch has `sample_ids`), and the last checkpoint.

    A step that is skipped leaves weights, optimizer and buffers (running statistics, queues) as they were, as if
    its micro-batches had not been there; the learning rate's schedule and the count of steps go on. Skipping is
    counted in `skipped`, logged as `faults/skipped_steps`, and ends where it does not help, after `in_a_row`.

    Under float16 mixed precision, gradients that overflow are the gradient scaler's everyday business: it skips
    the step and lowers its scale. They are a fault once that scale is below 1. A loss that is not finite always is.

    Put it behind callbacks that change gradients, so that it sees what they did.

    Args:
        on_fault: "stop" raises `NumericalFaultError`; "skip" leaves the step out and goes on.
        in_a_row: So many steps one after the other are skipped at most.

    Attributes:
        skipped: Optimizer steps skipped so far, earlier parts of a resumed training included.

    Raises:
        UserError: If an argument is out of its range.
    """

    def __init__(self, on_fault: OnFault = "stop", in_a_row: int = 10) -> None:
        super().__init__()
        if on_fault not in get_args(OnFault):
            raise UserError(f"on_fault is {on_fault!r}: {' or '.join(map(repr, get_args(OnFault)))} is allowed.")
        if in_a_row < 1:
            raise UserError(f"in_a_row is {in_a_row!r}: an integer of 1 or more is needed.")
        self.on_fault: OnFault = on_fault
        self.in_a_row = in_a_row
        self.skipped = 0
        self._row = 0
        self._seen: list[_MicroBatch] = []
        self._stepped = True
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses strategies under which a rank does not see its gradients.

        Raises:
            MisconfigurationException: If the strategy shards the module.
        """
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise MisconfigurationException(
                f"FiniteGuard cannot run under {type(trainer.strategy).__name__}, which shards gradients. "
                "Use a single device or 'ddp'."
            )
        self._row, self._seen, self._stepped, self._buffers = 0, [], True, []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses to train from weights that are not finite.

        Raises:
            NumericalFaultError: If a parameter is not finite.
        """
        parameters = {name: p.detach() for name, p in pl_module.named_parameters() if p.is_floating_point()}
        if not all_finite(parameters.values()):
            raise NumericalFaultError(
                f"the training would start from weights that are not finite: {_worst(parameters)}"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Remembers whose micro-batch this is and, in order to skip, the buffers before a step."""
        if self._stepped:
            self._seen, self._stepped = [], False
            if self.on_fault == "skip":
                self._buffers = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]
        samples = getattr(batch, "sample_ids", None) or (f"batch {batch_idx} of epoch {trainer.current_epoch}",)
        self._seen.append(_MicroBatch([str(sample) for sample in samples]))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keeps the loss and its terms: scalars, which nobody waits for."""
        if not self._seen:
            return
        latest = self._seen[-1]
        latest.loss = loss.detach()
        if isinstance(pl_module, HasTerms):
            latest.terms = dict(pl_module.loss_terms())

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Stops here, or makes the optimizer skip this step, where a loss or a gradient is not finite.

        Raises:
            NumericalFaultError: If one is not finite, and `on_fault` is "stop" or skipping does not help.
        """
        self._stepped = True
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if isinstance(p.grad, Tensor)]
        losses = [one.loss.float() for one in self._seen if one.loss is not None]
        device = trainer.strategy.root_device
        both = torch.stack([all_finite(losses).to(device), all_finite(gradients).to(device)])
        faults = (~both).float()
        if trainer.world_size > 1:
            distributed.all_reduce(faults)  # in place; on every rank the number of ranks with a fault
        in_loss, in_gradient = faults.tolist()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if not in_loss and (not in_gradient or (scaler is not None and scaler.get_scale() >= 1)):
            self._row = 0
        else:
            fault = self._description(trainer, pl_module, bool(in_loss))
            self._row += 1
            if self.on_fault == "stop" or self._row > self.in_a_row:
                raise NumericalFaultError(fault + self._advice(trainer))
            self.skipped += 1
            rank_zero_warn(f"{fault}. This step is skipped, the {self.skipped}. so far.", category=RuntimeWarning)
            self._skip(optimizer, gradients, scaler is not None)
        if self.on_fault == "skip":
            pl_module.log("faults/skipped_steps", float(self.skipped), on_step=True, on_epoch=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Frees what is remembered."""
        self._seen, self._buffers = [], []

    def state_dict(self) -> dict[str, Any]:
        """The count, for the checkpoint."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Counts on from the checkpoint."""
        self.skipped = state_dict["skipped"]

    def _skip(self, optimizer: Optimizer, gradients: Sequence[Tensor], scaled: bool) -> None:
        if scaled and getattr(optimizer, "_step_supports_amp_scaling", False):
            # A fused optimizer looks for nan itself, and the scaler insists on gradients to look at.
            torch._foreach_mul_(list(gradients), float("nan"))
        else:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        for buffer, before in self._buffers:
            buffer.copy_(before)

    def _description(self, trainer: Trainer, pl_module: LightningModule, in_loss: bool) -> str:
        """What is wrong on which rank, in words; wants all ranks."""
        mine = [text for one in self._seen if (text := _fault_in_loss(one))] if in_loss else []
        if not in_loss:
            gradients = {n: p.grad for n, p in pl_module.named_parameters() if isinstance(p.grad, Tensor)}
            samples = [sample for one in self._seen for sample in one.samples]
            mine = [f"the loss is finite, but not the gradient of {_worst(gradients)}; {_listed(samples)}"]
        where = "on rank {}, " if trainer.world_size > 1 else ""
        parts = [where.format(rank) + text for rank, texts in enumerate(gather_objects(mine)) for text in texts]
        return f"step {trainer.global_step}: " + "; ".join(parts)

    def _advice(self, trainer: Trainer) -> str:
        savers = [
            c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c._last_checkpoint_saved
        ]
        saver = max(savers, key=lambda c: c._last_global_step_saved, default=None)
        saved = (
            f"The weights were last saved, finite, at step {saver._last_global_step_saved}: "
            f"{saver._last_checkpoint_saved}"
            if saver
            else "No weights have been saved yet"
        )
        remedy = (
            f"The {self.in_a_row} steps before this one were skipped already."
            if self._row > self.in_a_row
            else "To leave such steps out, give trainer.callbacks a callbacks.FiniteGuard with on_fault: skip "
            "(--trainer.callbacks+=callbacks.FiniteGuard --trainer.callbacks.on_fault=skip). "
        )
        return f". {saved}. Look at these samples, lower the learning rate, or clip gradients. {remedy}".rstrip()


def _fault_in_loss(one: _MicroBatch) -> str | None:
    """What is not finite in a micro-batch's loss; None where all is."""
    if one.loss is None or bool(one.loss.isfinite().all()):
        return None
    terms: dict[str, list[str]] = defaultdict(list)
    for name, value in one.terms.items():
        if not bool(value.isfinite().all()):
            terms[_word(value)].append(name)
    found = [
        f"the loss term{'s' if len(names) > 1 else ''} {', '.join(names)} {'are' if len(names) > 1 else 'is'} {word}"
        for word, names in terms.items()
    ]
    return f"{' and '.join(found) or f'the loss is {_word(one.loss)}'}; {_listed(one.samples)}"


def _word(value: Tensor) -> str:
    return "nan" if bool(value.isnan().any()) else "infinite"


def _listed(samples: Sequence[str]) -> str:
    more = f" and {len(samples) - SHOWN} more" if len(samples) > SHOWN else ""
    return f"samples: {', '.join(samples[:SHOWN])}{more}"


def _worst(tensors: Mapping[str, Tensor]) -> str:
    """The first name that is not finite, and how many there are."""
    names = [name for name, tensor in tensors.items() if not bool(all_finite([tensor]))]
    rest = f" and {len(names) - 1} other parameters" if len(names) > 1 else ""
    return f"{names[0] if names else 'an unnamed parameter'}{rest}"
