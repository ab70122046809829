"""What question answering and classification share: one of a fixed set of names, chosen from z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from umd.batch import ImageTextBatch
from umd.encoders import EncoderConfig, Pooled
from umd.files import UserError
from umd.heads.split_head import Contribution, SplitHead
from umd.modules.downstream import DownstreamModule
from umd.optim import OptimizerConfig, ParameterGroup

Inputs = Literal["both", "image", "text"]


class AnsweringModule(DownstreamModule):
    """A split head on z, over names that are known when training starts.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names. With `vision` or `text` null
            it is a baseline of one modality: no fusion, half of z, and no contributions.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of an earlier stage; null starts from the encoders' own weights.
        contribution: how a modality's contribution (Eq. 10) is measured: by its half of the head's last layer
            ("last_layer"), or by the whole head with the other half of z set to zero ("masked_head").
        inputs: "both", or one of "image" and "text" for a control that never sees the other: images turn
            uniformly grey, or texts are cut to their start token.
    """

    takes_one_modality = True

    def __init__(
        self,
        encoder: EncoderConfig | Mapping[str, Any],
        optimizer: OptimizerConfig | Mapping[str, Any],
        init_from: str | None,
        contribution: Contribution,
        inputs: Inputs,
    ) -> None:
        for name, value, allowed in (
            ("contribution", contribution, get_args(Contribution)),
            ("inputs", inputs, get_args(Inputs)),
        ):
            if value not in allowed:
                raise UserError(f"{name} is '{value}'; allowed: {', '.join(allowed)}")
        super().__init__(encoder, optimizer, init_from)
        if self.encoder.modalities == 1 and inputs != "both":
            raise UserError(f"inputs is '{inputs}', but the encoder has one modality: leave it at 'both'")
        self.contribution: Contribution = contribution
        self.inputs = inputs

    def build_head(self, names: Sequence[str], called: str) -> None:
        """Make the head, once the names are known; `called` is the argument, and the words, for them.

        Raises:
            UserError: no name, or one that occurs twice.
        """
        if not names:
            raise UserError(f"the list of {called} is empty")
        self.names = tuple(names)
        self.number_of = {name: number for number, name in enumerate(names)}
        if len(self.number_of) != len(names):
            raise UserError(f"the list of {called} holds one of them twice")
        self.hparams[called] = list(names)
        self.head = SplitHead(self.encoder.width, len(names), self.encoder.modalities).to(self.device)

    def numbers(self, names: Sequence[str]) -> Tensor:
        """(B,) int64 numbers of these names, -1 where a name is none of the head's."""
        return torch.tensor([self.number_of.get(name, -1) for name in names], device=self.device)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Encoders at lr; fusion and head at their multiples."""
        head = ParameterGroup("head", list(self.head.parameters()), self.optimizer_config.head_multiplier)
        return [*self.encoder_groups(), head]

    def pool(self, batch: ImageTextBatch) -> Pooled:
        """The batch's pooled features, from what `inputs` lets the model see."""
        pixels = self.encoder.vision.normalize(batch.image)
        input_ids, attention_mask = batch.input_ids, batch.attention_mask
        if self.inputs == "text":
            pixels = torch.zeros_like(pixels)
        elif self.inputs == "image":
            input_ids, attention_mask = input_ids[:, :1], attention_mask[:, :1]
        pooled: Pooled = self.encoder.pool(self.encoder(pixels, input_ids, attention_mask))
        return pooled

    def pooled_features(self, batch: ImageTextBatch) -> Mapping[str, Tensor]:
        """See `umd.protocols.HasPooledFeatures`."""
        pooled = self.pool(batch)
        return {name: rows for name, rows in (("image", pooled.image), ("text", pooled.text)) if rows.shape[1]}

    def forward(self, batch: ImageTextBatch) -> Tensor:
        """Logits over the names, (B, A)."""
        logits: Tensor = self.head(self.pool(batch))
        return logits

    def training_logits(self, batch: ImageTextBatch, labels: Tensor) -> Tensor:
        """Logits (B, A) of a micro-batch, its contributions added to this optimizer step's sums.

        Args:
            batch: the pairs.
            labels: (B,) int64 true numbers, -1 where unknown.
        """
        pooled = self.pool(batch)
        if self.encoder.modalities == 2:
            self.add_contributions(self.head.contributions(pooled, labels, self.contribution))
        logits: Tensor = self.head(pooled)
        return logits

    def report_heading(self) -> tuple[str, list[str]]:
        """As for every stage; a control is called one."""
        title, notes = super().report_heading()
        config = self.encoder.config
        if self.encoder.modalities == 1:
            title += f", text-only ({config.text})" if config.vision is None else f", image-only ({config.vision})"
        elif self.inputs != "both":
            title += f", {self.inputs}-only control"
        return title, notes
