"""GGP's pre-training: image-text contrast, matching and masked language modelling (GGP section 2.2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from umd.batch import ImageTextBatch
from umd.checkpoints import HandOver
from umd.distributed import gather, largest, rank_and_ranks
from umd.encoders.fusion import first_token, initialize
from umd.encoders.ggp import GGPConfig
from umd.files import UserError
from umd.heads.text_decoder import tied_decoder
from umd.losses.contrastive import PairPool, PairQueue, contrastive_loss, hard_negatives, identities, unit
from umd.losses.masked_language import masked_language_loss
from umd.losses.matching import matching_loss
from umd.masking import mask_tokens
from umd.modules.base import from_plain
from umd.modules.ggp_stage import GGPStage
from umd.optim import OptimizerConfig, ParameterGroup

TRAIN, VALIDATE = 0, 1
TEMPERATURE_RANGE = (0.001, 0.5)
"""Between these the learned temperature is kept (ALBEF)."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """How pairs are contrasted. Defaults: GGP's and, where it is silent, ALBEF's, on which it builds.

    Attributes:
        projection_width: size d of the features that are compared.
        queue_size: earlier pairs that serve as negatives, where they share neither image nor caption; 0 for none.
        momentum: decay of the momentum encoders' moving average, per optimizer step.
        distillation: weight of the momentum encoders' opinion in the contrastive targets, constant.
        temperature: where the learned temperature starts.
        text_mask_ratio: share of tokens that are hidden, each by the mask token.
        mask_seed: seed of masks and negatives.
    """

    projection_width: int = 256
    queue_size: int = 65536
    momentum: float = 0.995
    distillation: float = 0.4
    temperature: float = 0.07
    text_mask_ratio: float = 0.15
    mask_seed: int = 0

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        for name in ("momentum", "distillation", "text_mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        low, high = TEMPERATURE_RANGE
        if not low <= self.temperature <= high:
            raise UserError(f"temperature is {self.temperature}; it must lie in [{low}, {high}]")
        if self.queue_size < 0 or self.projection_width < 1:
            raise UserError(
                f"queue_size is {self.queue_size} and projection_width {self.projection_width}; "
                "they must be at least 0 and 1"
            )


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the uni-modal encoders say of B pairs, and their momentum copies of the pairs of all W ranks.

    Attributes:
        image: (B, 1 + P, W) tokens.
        text: (B, L, D) tokens.
        image_feature: (B, d) unit vectors.
        text_feature: (B, d) unit vectors.
        pool: the momentum encoders' features of the W * B pairs.
        own: (B,) int64, this rank's places among the W * B.
    """

    image: Tensor
    text: Tensor
    image_feature: Tensor
    text_feature: Tensor
    pool: PairPool
    own: Tensor


@dataclass(frozen=True, slots=True)
class ContrastiveTerms:
    """The unweighted terms of one step, scalars; their sum is the loss.

    Attributes:
        itc: image-text contrast.
        itm: image-text matching.
        mlm: masked language modelling.
    """

    itc: Tensor
    itm: Tensor
    mlm: Tensor

    def total(self) -> Tensor:
        """The loss."""
        return self.itc + self.itm + self.mlm

    def named(self) -> dict[str, Tensor]:
        """The terms by name, detached."""
        return {"itc": self.itc.detach(), "itm": self.itm.detach(), "mlm": self.mlm.detach()}


class ContrastivePretrain(GGPStage):
    """Contrast images with texts, tell pairs from hard negatives, and rebuild hidden tokens from text and image.

    Momentum copies of both uni-modal encoders and their projections, never trained, fill the pool and the queue
    of negatives; over several ranks, pool, queue and hard negatives are those of all ranks together.

    Args:
        encoder: GGP's encoder.
        optimizer: AdamW and its schedule. The paper: lr 3e-4, 5 % warm-up; the rest is ALBEF's.
        contrastive: the queue, the momentum encoders, and what is hidden.
        init_from: checkpoint of an earlier pre-training of this kind to start from.
    """

    hands_over = ("encoder.", "image_contrast.", "text_contrast.", "matching_head.", "text_decoder.")

    def __init__(
        self,
        encoder: GGPConfig = GGPConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(  # noqa: B008 - frozen
            lr=3e-4,
            fusion_multiplier=1.0,
            head_multiplier=1.0,
            weight_decay=0.02,
            betas=(0.9, 0.999),
            schedule="cosine",
            warmup_ratio=0.05,
        ),
        contrastive: ContrastiveConfig = ContrastiveConfig(),
        init_from: str | None = None,
    ) -> None:
        super().__init__(encoder, optimizer, init_from)
        self.contrastive = config = from_plain(ContrastiveConfig, contrastive)
        text = self.encoder.text
        self.image_contrast = nn.Linear(self.encoder.vision.width, config.projection_width)
        self.text_contrast = nn.Linear(text.width, config.projection_width)
        self.matching_head = nn.Linear(text.width, 2)
        for head in (self.image_contrast, self.text_contrast, self.matching_head):
            initialize(head, text.width)
        self.text_decoder = tied_decoder(text)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))
        self.momentum = copy.deepcopy(self._averaged()).requires_grad_(False).eval()
        self.queue = PairQueue(config.queue_size, config.projection_width)
        # The same on every rank by construction, and far too large to be sent round at every step.
        self._ddp_params_and_buffers_to_ignore = [f"queue.{name}" for name, _ in self.queue.named_buffers()]

    def _averaged(self) -> nn.ModuleDict:
        """What has a momentum copy."""
        return nn.ModuleDict(
            {
                "vision": self.encoder.vision,
                "text": self.encoder.text,
                "image_contrast": self.image_contrast,
                "text_contrast": self.text_contrast,
            }
        )

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Uni-modal encoders at lr; multi-modal encoder and heads at their multiples."""
        heads = (self.image_contrast, self.text_contrast, self.matching_head, self.text_decoder)
        return self.grouped([self.temperature, *(p for head in heads for p in head.parameters())])

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; the momentum encoders always evaluate."""
        super().train(mode)
        if hasattr(self, "momentum"):
            self.momentum.eval()
        return self

    def after_hand_over(self, report: HandOver) -> None:
        """The momentum encoders start as copies of what was taken over."""
        self.momentum.load_state_dict(self._averaged().state_dict())

    @torch.no_grad()
    def after_optimizer_step(self, updated: bool) -> None:
        """Move the momentum encoders, once per optimizer step, and keep the temperature in its range."""
        if not updated:
            return
        student = self._averaged()
        torch._foreach_lerp_(
            list(self.momentum.parameters()), list(student.parameters()), 1 - self.contrastive.momentum
        )
        for kept, current in zip(self.momentum.buffers(), student.buffers(), strict=True):
            kept.copy_(current)
        self.temperature.clamp_(*TEMPERATURE_RANGE)

    def encode(self, batch: ImageTextBatch) -> Encoded:
        """Both modalities of a batch by themselves, as the trained and as the momentum encoders see them."""
        pixels = self.encoder.vision.normalize(batch.image)
        image: Tensor = self.encoder.encode_images(pixels, batch.image_index)
        text = self.encoder.text(batch.input_ids, batch.attention_mask)
        with torch.no_grad():
            momentum = self.momentum
            image_pool = unit(momentum["image_contrast"](batch.per_pair(momentum["vision"](pixels)[:, 0])))
            seen = momentum["text"](batch.input_ids, batch.attention_mask)
            text_pool = unit(momentum["text_contrast"](seen[:, 0]))
        return Encoded(
            image=image,
            text=text,
            image_feature=unit(self.image_contrast(image[:, 0])),
            text_feature=unit(self.text_contrast(text[:, 0])),
            pool=PairPool(
                image=gather(image_pool),
                text=gather(text_pool),
                image_identity=gather(identities(batch.image_names).to(image.device)),
                text_identity=gather(identities(batch.texts).to(image.device)),
            ),
            own=torch.arange(len(batch), device=image.device) + rank_and_ranks()[0] * len(batch),
        )

    def contrast(self, encoded: Encoded) -> Tensor:
        """L_ITC; training adds the queue to the pool, and the momentum encoders' opinion to the targets.

        Evaluation does without both, so that the task is the same in every epoch.
        """
        return contrastive_loss(
            encoded.image_feature,
            encoded.text_feature,
            encoded.pool.followed_by(self.queue.pairs()) if self.training else encoded.pool,
            encoded.own,
            self.temperature,
            self.contrastive.distillation if self.training else 0.0,
        )

    def negatives(self, encoded: Encoded, *key: int) -> tuple[Tensor, Tensor]:
        """For each text another pair's image, for each image another pair's text: (B,) int64 places among W * B.

        Never of a pair that shares the own one's image or caption. Where all do, what is drawn means nothing.
        """
        generator = self.generator(self.contrastive.mask_seed, 0, *key)
        with torch.no_grad():
            images = encoded.text_feature @ encoded.pool.image.T / self.temperature
            texts = encoded.image_feature @ encoded.pool.text.T / self.temperature
        equal = encoded.pool.equal(encoded.own)
        return hard_negatives(images, equal, generator), hard_negatives(texts, equal, generator)

    def matching(self, batch: ImageTextBatch, encoded: Encoded, *key: int) -> Tensor:
        """L_ITM over B true pairs, B texts with a hard negative image, and B images with a hard negative text.

        A pair to which all others of the batch are equal has no negative, and is seen as a true pair alone.
        """
        image, text, mask = encoded.image, encoded.text, batch.attention_mask
        longer = largest(text.shape[1], text.device) - text.shape[1]
        text, mask = functional.pad(text, (0, 0, 0, longer)), functional.pad(mask, (0, longer))
        all_images, all_texts, all_masks = gather(image), gather(text), gather(mask)
        some = (~encoded.pool.equal(encoded.own)).any(1)
        other_image, other_text = (places[some] for places in self.negatives(encoded, *key))
        match = torch.cat([torch.ones_like(encoded.own), torch.zeros_like(other_image), torch.zeros_like(other_text)])
        # Indexed also where no row is left: the other ranks wait for this one's part of the backward.
        image = torch.cat([image, all_images[other_image], image[some]])
        text = torch.cat([text, text[some], all_texts[other_text]])
        mask = torch.cat([mask, mask[some], all_masks[other_text]])
        return matching_loss(self.matching_head(self.encoder.fuse(text, mask, image, first_token)[:, 0]), match)

    def masked_language(self, batch: ImageTextBatch, encoded: Encoded, *key: int) -> Tensor:
        """L_MLM: hidden tokens from the rest of the text and the whole image."""
        masked = mask_tokens(
            batch.input_ids,
            batch.special_tokens_mask,
            mask_token_id=batch.mask_token_id,
            vocab_size=self.encoder.text.vocab_size,
            ratio=self.contrastive.text_mask_ratio,
            generator=self.generator(self.contrastive.mask_seed, 1, *key),
            always_mask=True,
        )
        text = self.encoder.text(masked.input_ids, batch.attention_mask)
        joint = self.encoder.fuse(text, batch.attention_mask, encoded.image)
        return masked_language_loss(self.text_decoder, joint, masked.labels)

    def terms(self, batch: ImageTextBatch, encoded: Encoded, *key: int) -> ContrastiveTerms:
        """All unweighted terms of one batch at a position in training."""
        return ContrastiveTerms(
            itc=self.contrast(encoded),
            itm=self.matching(batch, encoded, *key),
            mlm=self.masked_language(batch, encoded, *key),
        )

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The loss of one batch, each term logged; then its momentum features enter the queue."""
        encoded = self.encode(batch)
        terms = self.terms(batch, encoded, TRAIN, self.current_epoch, batch_idx)
        self.queue.enqueue(encoded.pool)
        loss, size = terms.total(), len(batch)
        self._terms = terms.named()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"train/{k}": v for k, v in self._terms.items()}, prog_bar=True, batch_size=size)
        self.log("train/temperature", self.temperature.detach(), batch_size=size)
        return loss

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """The same terms under the same masks in every epoch; the queue is neither read nor written."""
        terms = self.terms(batch, self.encode(batch), VALIDATE, batch_idx)
        named: Mapping[str, Any] = {f"validation/{name}": value for name, value in terms.named().items()}
        self.log_dict({**named, "validation/loss": terms.total()}, batch_size=len(batch), sync_dist=True)
