"""The machine of MR-Pretrain and TD-Calib: a list of objectives, what they need, and the teacher."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm

from umd.batch import ImageTextBatch
from umd.checkpoints import HandOver
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.losses.masked_image import MaskedImage, patch_statistics, patchify, unpatchify
from umd.losses.objective import Objective
from umd.losses.views import REACHED, Masking, Views, parts
from umd.modules.base import from_plain
from umd.modules.objectives import ReconstructionConfig
from umd.modules.umd_stage import UMDStage
from umd.optim import OptimizerConfig, ParameterGroup

logger = logging.getLogger(__name__)

TRAIN, VALIDATE, SHOW = 0, 1, 2

_HEADS = (
    "image_decoder",
    "text_decoder",
    "matching_head",
    "image_feature_projection",
    "text_feature_projection",
    "trunk_projection",
)
"""The order in which heads draw their random weights and lie in checkpoints' optimizer states; others follow."""


class ReconstructionModule(UMDStage):
    """Mask image and text together, rebuild data and an EMA teacher's features; or any other list of objectives.

    What no objective reads is frozen and handed on as it is; there is a teacher where an objective reads one.

    Args:
        encoder: the multi-modal encoder.
        optimizer: AdamW and its schedule.
        reconstruction: the objectives, what is hidden and what is rebuilt.
        init_from: checkpoint of an earlier stage to start from.
    """

    carried: tuple[str, ...] = ()
    """Objectives whose heads the stage hands on as they are, where it does not train them."""

    def __init__(
        self,
        encoder: EncoderConfig | Mapping[str, Any],
        optimizer: OptimizerConfig | Mapping[str, Any],
        reconstruction: ReconstructionConfig | Mapping[str, Any],
        init_from: str | None,
    ) -> None:
        super().__init__(encoder, optimizer, init_from)
        self.reconstruction = config = from_plain(ReconstructionConfig, reconstruction)
        if config.contrastive_chunk is not None and _learns_batch_statistics(self.encoder):
            raise UserError(
                f"contrastive_chunk is {config.contrastive_chunk}, but the encoder normalises over batches: "
                "over chunks it would be another training. Leave it at null"
            )
        weights = self.choose(config)
        self.objectives = config.build(weights)
        self.loss_weights = {objective.term: weights[name] for name, objective in self.objectives.items()}
        self._build_heads([*self.objectives.values(), *config.build(self.carried).values()])
        if self.has_teacher:
            self.teacher = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        self._freeze_unread()
        self._one_vision = False

    def choose(self, config: ReconstructionConfig) -> dict[str, float]:
        """The objectives that the stage trains, and the weight of each."""
        return config.loss_weights

    def on_fit_start(self) -> None:
        """As for every stage; see whether teacher and student encode images alike."""
        super().on_fit_start()
        self.compare_visions()

    def on_validation_start(self) -> None:
        """As for every stage; see whether teacher and student encode images alike."""
        super().on_validation_start()
        self.compare_visions()

    def compare_visions(self) -> None:
        """Let teacher and student share what they encode, where the vision encoder is frozen and the same for both.

        It is not where an earlier stage has trained it: the teacher then goes on following the student.
        """
        if not (self.has_teacher and self.encoder.config.freeze_vision):
            return
        student, teacher = (encoder.vision.state_dict() for encoder in (self.encoder, self.teacher))
        self._one_vision = all(torch.equal(value, teacher[name]) for name, value in student.items())
        # What the teacher has encoded goes with its weights of then.
        self.teacher.remember(0)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The weighted total of one batch, each term logged."""
        terms = self.terms(batch, TRAIN, self.current_epoch, batch_idx)
        loss, size = self.total(terms), len(batch)
        self._terms = {name: term.detach() for name, term in terms.items()}
        if "contrastive" in terms:
            self.log("train/negatives", size * self.trainer.world_size - 1.0, batch_size=size)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"train/{k}": v for k, v in self._terms.items()}, prog_bar=True, batch_size=size)
        return loss

    def on_train_batch_start(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Say how many others each pair is contrasted with, where pairs are, and note it for the tables."""
        if "contrastive" not in self.loss_weights or "negatives" in self._lineage[0]["facts"]:
            return
        accumulated = self.trainer.accumulate_grad_batches
        negatives = len(batch) * self.trainer.world_size - 1
        self._lineage[0]["facts"]["negatives"] = f"{negatives} for each pair"
        line = f"each pair is contrasted with the {negatives} others of its micro-batch, over all devices"
        if accumulated > 1:
            line += (
                f", and not with those of the step's {accumulated - 1} other micro-batches. For the whole step: "
                f"--data.batch_size {len(batch) * accumulated} --trainer.accumulate_grad_batches 1 "
                f"--model.reconstruction.contrastive_chunk {len(batch)}"
            )
        logger.info("%s", line)

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """The same terms under the same masks in every epoch, so that epochs can be compared."""
        terms = self.terms(batch, VALIDATE, batch_idx)
        named = {f"validation/{name}": term for name, term in terms.items()}
        self.log_dict({**named, "validation/loss": self.total(terms)}, batch_size=len(batch), sync_dist=True)

    def terms(self, batch: ImageTextBatch, *key: int) -> dict[str, Tensor]:
        """The unweighted terms of one batch, at a position in training that decides what is hidden."""
        views = self.views(batch, *key)
        return {objective.term: objective(views) for objective in self.objectives.values()}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms (Eq. 7)."""
        return reduce(add, (self.loss_weights[name] * term for name, term in terms.items()))

    def views(self, batch: ImageTextBatch, *key: int, hide_text: bool = True) -> Views:
        """What objectives read of a batch, at a position in training."""
        config = self.reconstruction
        return Views(
            batch=batch,
            encoder=self.encoder,
            teacher=self.teacher if self.has_teacher else None,
            heads=self,
            masking=Masking(
                image_ratio=config.hidden_share,
                text_ratio=config.text_mask_ratio if hide_text else None,
                whole_word=config.whole_word,
            ),
            generator=lambda number: self.generator(config.mask_seed, number, *key),
            gathers=self._trainer is not None and self.trainer.world_size > 1 and self.trainer.training,
            hidden_features=config.feature_target == "masked",
            one_vision=self._one_vision,
            chunk=config.contrastive_chunk,
        )

    def _build_heads(self, objectives: Sequence[Objective]) -> None:
        heads: dict[str, Callable[[], nn.Module | Parameter]] = {}
        handed_over: dict[str, None] = {}
        for objective in objectives:
            needed = objective.heads(self.encoder)
            heads = {**heads, **{name: build for name, build in needed.items() if name not in heads}}
            handed_over |= dict.fromkeys(needed if objective.hands_over else ())
        for name in sorted(heads, key=lambda name: _HEADS.index(name) if name in _HEADS else len(_HEADS)):
            setattr(self, name, heads[name]())
        self.hands_over = ("encoder.", "teacher.", *(f"{name}." for name in handed_over))

    def _freeze_unread(self) -> None:
        """Leave as it is what no objective reads; what is frozen already stays so."""
        objectives = self.objectives.values()
        reached = {part for objective in objectives for view in objective.reads for part in REACHED[view]}
        needed = {name for objective in objectives for name in objective.heads(self.encoder)}
        for part, parameters in parts(self.encoder).items():
            if part not in reached:
                for parameter in parameters:
                    parameter.requires_grad_(False)
        for name, parameter in self.named_head_parameters():
            if name.split(".")[0] not in needed:
                parameter.requires_grad_(False)

    @property
    def has_teacher(self) -> bool:
        """Whether an objective reads a teacher's features."""
        return any("teacher" in objective.reads for objective in self.objectives.values())

    def named_head_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters outside the encoder and the teacher, with their names."""
        for name, parameter in self.named_parameters():
            if not name.startswith(("encoder.", "teacher.")):
                yield name, parameter

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Encoders at lr; fusion, and decoders and heads, at their multiples."""
        heads = [parameter for _, parameter in self.named_head_parameters()]
        return [*self.encoder_groups(), ParameterGroup("heads", heads, self.optimizer_config.head_multiplier)]

    def position_tables(self) -> dict[str, int]:
        """The student's and the teacher's learned position tables."""
        tables = super().position_tables()
        if self.has_teacher:
            tables |= {name.replace("encoder.", "teacher.", 1): grid for name, grid in tables.items()}
        return tables

    def after_hand_over(self, report: HandOver) -> None:
        """Start the teacher from the student where the earlier stage had none."""
        if self.has_teacher and any(name.startswith("teacher.") for name in report.missing):
            self.teacher.load_state_dict(self.encoder.state_dict())

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; the teacher always evaluates."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    @torch.no_grad()
    def after_optimizer_step(self, updated: bool) -> None:
        """Eq. 5: teacher <- lambda teacher + (1 - lambda) student, once per optimizer step; buffers are copied."""
        for objective in self.objectives.values():
            objective.after_optimizer_step(self)
        if not (updated and self.has_teacher):
            return
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(teacher, student, 1 - self.reconstruction.teacher_decay)
        for kept, current in zip(self.teacher.buffers(), self.encoder.buffers(), strict=True):
            kept.copy_(current)

    @torch.no_grad()
    def reconstruct(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor, Tensor] | None:
        """Input, masked input (hidden patches grey), and reconstruction, each (B, 3, S, S) in 0..1.

        None where no objective rebuilds images. The text is in full view. Patches that stayed visible are shown as
        they are. Standardised patches get their own mean and deviation back, which the network does not predict.
        """
        rebuilding = [objective for objective in self.objectives.values() if isinstance(objective, MaskedImage)]
        if not rebuilding:
            return None
        views, vision = self.views(batch, SHOW, hide_text=False), self.encoder.vision
        patches = patchify(views.pixels, vision.patch_size)
        predicted = rebuilding[0].predict(views).to(patches.dtype)
        if self.reconstruction.normalize_patches:
            mean, deviation = patch_statistics(patches)
            predicted = predicted * deviation + mean
        hidden = views.patch_mask.masked[:, :, None]
        shown = (patches, patches.masked_fill(hidden, 0.0), torch.where(hidden, predicted, patches))
        original, masked, rebuilt = (vision.denormalize(unpatchify(part, vision.patch_size)) for part in shown)
        return original, masked, rebuilt


def _learns_batch_statistics(encoder: nn.Module) -> bool:
    norms = (module for module in encoder.modules() if isinstance(module, _BatchNorm))
    return any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
