"""What all stages share: the encoder, the optimizer, the hand-over, a checkpoint that explains itself."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Generator, Tensor
from torch.optim import Optimizer

from umd.checkpoints import SETTINGS_KEY, HandOver, arguments_of, check_encoder, hand_over, public_name, to_plain
from umd.encoders.interfaces import PairEncoder
from umd.files import UserError
from umd.modules.lineage import (
    LINEAGE_KEY,
    check_protocol,
    lineage_behind,
    lineage_in,
    noted,
    protocol_on,
    this_training,
)
from umd.optim import OptimizerConfig, ParameterGroup, build_adamw, build_schedule, check_partition
from umd.protocols import UNKNOWN, HasVocabulary, Training

logger = logging.getLogger(__name__)

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
SHARDING = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)

Config = TypeVar("Config")
EncoderT = TypeVar("EncoderT", bound=PairEncoder)


def from_plain(kind: type[Config], value: Config | Mapping[str, Any]) -> Config:
    """A settings dataclass from itself or from the mapping that a checkpoint holds."""
    return kind(**value) if isinstance(value, Mapping) else value


class Stage(LightningModule, Generic[EncoderT]):
    """Base of every stage: one encoder of pairs, AdamW with groups, hand-over by checkpoint.

    A checkpoint holds, under "hyper_parameters", plain values from which `load_from_checkpoint` builds the
    module again without weights, hub or earlier checkpoint, and under "umd" the class paths and settings of
    module and data module.

    Args:
        encoder: the encoder's settings, a dataclass or its plain form.
        optimizer: the optimizer's settings.
        init_from: checkpoint of an earlier stage whose weights a new training starts from.
    """

    encoder: EncoderT

    hands_over: tuple[str, ...] = ("encoder.",)
    """Prefixes of the weights that a stage takes from the earlier one."""

    def __init__(
        self,
        encoder: object,
        optimizer: OptimizerConfig | Mapping[str, Any],
        init_from: str | None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self._set_hparams(to_plain(dict(self.hparams)))
        self.optimizer_config = from_plain(OptimizerConfig, optimizer)
        self.init_from = init_from
        self._started_from: dict[str, Any] | None = None
        self._lineage: list[Training] = []
        self._terms: Mapping[str, Tensor] = {}
        # The earlier stage's weights replace the published ones, so these need not be there.
        self.encoder = self.build_encoder(encoder, published=not init_from)

    @abstractmethod
    def build_encoder(self, settings: Any, published: bool) -> EncoderT:  # noqa: ANN401 - each encoder has its own
        """The encoder of these settings, with the published weights that they name or, without, random ones."""

    @abstractmethod
    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All trainable parameters, each in exactly one group."""

    @property
    def data(self) -> object:
        """The data module of this run; None without one."""
        return getattr(self._trainer, "datamodule", None)

    def position_tables(self) -> dict[str, int]:
        """Learned position tables by their name in the state dict, with the patch grid of each."""
        table = self.encoder.vision.position_table
        grid = self.encoder.vision.grid
        return {f"encoder.vision.{table}": grid} if table else {}

    def generator(self, seed: int, *key: int) -> Generator:
        """Randomness that depends on nothing but the seed, the key (a position in training), and the rank."""
        mixed = hash((seed, *key, self.global_rank)) & 0x7FFF_FFFF_FFFF_FFFF
        return Generator(self.device).manual_seed(mixed)

    def setup(self, stage: str) -> None:
        """Refuse what would go wrong silently, or fail later in other words.

        Raises:
            MisconfigurationException: the weights themselves would not be float32, or a training be sharded.
        """
        if self.trainer.precision not in PRECISIONS:
            raise MisconfigurationException(
                f"trainer.precision is '{self.trainer.precision}'; allowed: {', '.join(PRECISIONS)}. The weights stay "
                "in float32: in 16 bits small steps and a teacher's moving average are lost in rounding"
            )
        if stage == "fit" and isinstance(self.trainer.strategy, SHARDING):
            raise MisconfigurationException(
                f"{type(self.trainer.strategy).__name__} shards the model, which teachers, both papers' callbacks and "
                "the check for nan do not know how to handle. Use --trainer.strategy ddp, or one device"
            )

    def check_start(self) -> None:
        """Refuse an `init_from` of another encoder; it is cheap, and can be done before any data are read.

        Raises:
            UserError: its weights do not fit.
        """
        if self.init_from:
            check_encoder(self.init_from, self, self.position_tables(), self.translate)

    def on_fit_start(self) -> None:
        """Start a new training from `init_from`; one that goes on from its own checkpoint does not read it."""
        self.check_tokenizer()
        self._take_down_lineage()
        if self.init_from and not self.trainer.ckpt_path:
            report = hand_over(self.init_from, self, self.hands_over, self.position_tables(), self.translate)
            lacking = [name for name in report.missing if name.startswith("encoder.")]
            if lacking:
                raise UserError(f"'{self.init_from}' lacks weights of the encoder: {', '.join(lacking[:5])}")
            self.after_hand_over(report)
            logger.info("%s: %s", self.init_from, report)

    def _take_down_lineage(self) -> None:
        """Note what is trained on now, and before; refuse what the protocol of now does not allow.

        Raises:
            UserError: the weights have seen what they must not.
        """
        own = this_training(_class_path(self), self.data)
        path = self.trainer.ckpt_path or self.init_from
        if self.trainer.ckpt_path:
            begun, *behind = self._lineage  # from `on_load_checkpoint`
            check_protocol([begun, *behind], own, str(path))
            if begun["protocol"] == UNKNOWN:
                own["protocol"] = UNKNOWN
        else:
            behind = lineage_behind(self.init_from) if self.init_from else []
            check_protocol(behind, own, str(path))
        self._lineage = [own, *behind]
        if own["protocol"] is not None and protocol_on(self._lineage, own["data"]) == UNKNOWN:
            logger.warning("nothing tells under which protocol '%s' was trained: the tables will say so", path)

    def lineage(self) -> Sequence[Training]:
        """See `umd.protocols.HasLineage`."""
        return self._lineage

    def check_tokenizer(self) -> None:
        """Raise UserError where the data's tokens are not the text encoder's.

        Not in `setup`: a tokenizer that a checkpoint holds is restored after it.
        """
        data = self.data
        embedded = self.encoder.text.vocab_size
        if isinstance(data, HasVocabulary) and data.tokenizer_size > embedded:
            raise UserError(
                f"the tokenizer has {data.tokenizer_size} tokens, the text encoder "
                f"'{self.hparams['encoder']['text']}' embeds {embedded}: they do not belong together"
            )

    on_validation_start = on_test_start = on_predict_start = check_tokenizer

    def translate(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The earlier stage's weights under the names, and in the shapes, that they have here."""
        return weights

    def after_hand_over(self, report: HandOver) -> None:
        """Called once the earlier stage's weights are in."""

    @property
    def learning_rate(self) -> float:
        """The encoders' learning rate; all others are multiples of it. Lightning's learning-rate finder sets it."""
        return self.optimizer_config.lr

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        factor = rate / self.optimizer_config.lr
        self.optimizer_config = replace(self.optimizer_config, lr=rate)
        self.hparams["optimizer"]["lr"] = rate
        for optimizer in self._trainer.optimizers if self._trainer else []:
            for group in optimizer.param_groups:
                group["initial_lr"] *= factor

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own type for this is a large union
        """AdamW over the groups, with the warm-up and decay of the settings, stepped every optimizer step."""
        groups = self.parameter_groups()
        check_partition(self, groups)
        # Lightning refuses to clip for a fused optimizer in mixed precision, in bfloat16 too. In float16 a fused one
        # would unscale in its step: callbacks would see scaled gradients, and a skipped step would pass for an update.
        precision, clips = self.trainer.precision, bool(self.trainer.gradient_clip_val)
        fused = precision == "32-true" or (precision == "bf16-mixed" and not clips)
        optimizer = build_adamw(groups, self.optimizer_config, fused)
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise UserError("the learning rate needs an end: set trainer.max_steps or trainer.max_epochs")
        schedule = build_schedule(optimizer, self.optimizer_config, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's own
        """The gradient of a micro-batch's share of the mean over its optimizer step's micro-batches.

        Lightning divides by `accumulate_grad_batches` also in an epoch's last step, which may hold fewer.
        """
        super().backward(loss * self._share_of_step(), *args, **kwargs)

    def _share_of_step(self) -> float:
        """What Lightning's share, one part of `accumulate_grad_batches`, is to be multiplied by."""
        accumulated, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        held = batches - self.trainer.fit_loop.batch_idx // accumulated * accumulated
        # Going on amid an epoch without `ExactResume`, Lightning counts on beyond its end.
        return accumulated / held if 0 < held < accumulated else 1.0

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """The update, then `after_optimizer_step`: once a step, however many micro-batches it took."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        updates: list[bool] = []
        hook = plain.register_step_post_hook(lambda *_: updates.append(_has_gradients(plain)))
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        finally:
            hook.remove()
        self.after_optimizer_step(any(updates))

    def after_optimizer_step(self, updated: bool) -> None:
        """Called after every optimizer step; `updated` is false where it was skipped, and no weight moved."""

    def loss_terms(self) -> Mapping[str, Tensor]:
        """See `umd.protocols.HasTerms`; nothing where the loss has no terms."""
        return self._terms

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember what the weights were trained on, and what the training that goes on here had started from."""
        self._lineage = lineage_in(checkpoint)
        self._started_from = checkpoint.get(SETTINGS_KEY, {}).get("started_from")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write settings that need nothing but this file: weights are in it, so no source of them is named.

        Raises:
            UserError: a weight is nan or infinite; nothing has been written then.
        """
        check_finite(checkpoint["state_dict"])
        settings = to_plain(dict(self.hparams))
        origin = self._started_from or {
            "init_from": settings.get("init_from"),
            "vision_weights": settings["encoder"].get("vision_weights"),
            "text_weights": settings["encoder"].get("text_weights"),
        }
        settings["init_from"] = None
        settings["encoder"] |= {"vision_weights": None, "text_weights": None}
        checkpoint["hyper_parameters"] = settings
        checkpoint.setdefault(SETTINGS_KEY, {}).update(
            model={"class_path": _class_path(self), "init_args": settings}, started_from=origin
        )
        data = self.data
        if isinstance(data, LightningDataModule):
            # Lightning also notes what a class passes on to its parent, which the class itself does not take.
            taken = arguments_of(type(data))
            checkpoint[SETTINGS_KEY]["data"] = {
                "class_path": _class_path(data),
                "init_args": {key: value for key, value in to_plain(dict(data.hparams)).items() if key in taken},
            }
        if self._lineage:
            own, *behind = self._lineage
            checkpoint[SETTINGS_KEY][LINEAGE_KEY] = to_plain([noted(own, checkpoint[SETTINGS_KEY]), *behind])


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise UserError, with names, where a weight is nan or infinite."""
    floating = {name: value for name, value in weights.items() if value.is_floating_point()}
    flags = [value.isfinite().all() for value in floating.values()]
    if not flags or bool(torch.stack(flags).all()):
        return
    lost = [name for name, flag in zip(floating, flags, strict=True) if not flag]
    raise UserError(
        f"no checkpoint is written, since {len(lost)} of {len(floating)} weights are nan or infinite: "
        f"{', '.join(lost[:5])}. Earlier checkpoints stay as they are: go on from one with a lower learning rate"
    )


def _has_gradients(optimizer: Optimizer) -> bool:
    return any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"])


def _class_path(instance: object) -> str:
    return public_name(f"{type(instance).__module__}.{type(instance).__qualname__}")
