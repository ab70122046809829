"""Choosing one of a fixed list of names: what question answering and classification are, both (UMD section 3.3.2)."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from umd.batch import ImageTextBatch
from umd.checkpoints import HandOver
from umd.encoders import EncoderConfig, MultimodalEncoder, Pooled
from umd.files import UserError
from umd.heads.split_head import Contribution, SplitHead
from umd.modules.confidence import Validated
from umd.modules.contributions import Contributions
from umd.modules.outcomes import NOTHING_TO_COMPARE, Row, report_heading, validates_on_test, with_truth
from umd.modules.ranked import SHOWN, Ranked, ranked
from umd.modules.umd_stage import UMDStage
from umd.optim import OptimizerConfig, ParameterGroup

logger = logging.getLogger(__name__)

Inputs = Literal["both", "image", "text"]

TEMPERATURE_KEY = "temperature"
"""Where a checkpoint holds it."""


class Scores(Protocol):
    """A metric over a whole split."""

    def compute(self) -> Mapping[str, Tensor]:
        """Its values in per cent, by name."""
        ...

    def report(self) -> list[Row]:
        """The same as rows of a table, with intervals; none where there was nothing to measure."""
        ...

    def reset(self) -> None:
        """Forget the split."""
        ...


BatchT = TypeVar("BatchT", bound=ImageTextBatch)
ScoresT = TypeVar("ScoresT", bound=Scores)


class ChoiceStage(Contributions[MultimodalEncoder], UMDStage, Generic[BatchT, ScoresT]):
    """A head with two halves on z, over names that are known when training starts.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names. With `vision` or `text` null
            it is a baseline of one modality: no fusion, half of z, and no contributions.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of an earlier stage; null starts from the encoders' own weights.
        contribution: how a modality's contribution (Eq. 10) is measured: by the whole head with the other half of z
            set to zero ("masked_head"), or by its half of the head's last layer ("last_layer", only to reproduce the
            released code: it stays at chance whatever decides).
        inputs: "both", or one of "image" and "text" for a control that never sees the other: images turn
            uniformly grey, or texts are cut to their start token.
    """

    takes_one_modality = True

    temperature: float
    """What logits are divided by before they become confidences, fitted on validation; 1: nothing was fitted."""

    called: ClassVar[str]
    """The argument that holds the names, and the words for them."""
    columns: ClassVar[Sequence[str]]
    """Columns of the test's table."""
    headline: ClassVar[str]
    """The metric that the progress bar shows."""

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
        self.temperature = 1.0
        self._validated = Validated()
        self._test_rows: list[dict[str, Any]] = []
        self._test_notes: list[str] = []

    # What a task says of itself

    @abstractmethod
    def names_in(self, data: object) -> Sequence[str]:
        """The names that the data has; UserError where it has none of this kind."""

    @abstractmethod
    def new_scores(self, count: int) -> ScoresT:
        """The metric over `count` names."""

    @abstractmethod
    def truths(self, batch: BatchT) -> Sequence[str]:
        """The true name of each sample, "" where it is not known."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of (B, A) logits and (B,) int64 labels, -1 where unknown."""

    @abstractmethod
    def update(self, scores: ScoresT, batch: BatchT, logits: Tensor, labels: Tensor) -> None:
        """Add a batch to a metric, but for the samples whose true name is not known."""

    @abstractmethod
    def right(self, batch: BatchT, logits: Tensor) -> Tensor:
        """(B,) bool, whether the chosen names are true."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """What (B, A) logits give each name, (B, A) in 0..1."""

    @abstractmethod
    def notes(self, scores: ScoresT) -> list[str]:
        """Notes below the test's table."""

    @abstractmethod
    def rows(self, batch: BatchT, logits: Tensor) -> list[Row]:
        """One row a sample: what was asked, what is chosen, how sure, what is true, and whether that is it."""

    # The head

    def on_fit_start(self) -> None:
        """Say where contributions are measured as in the released code."""
        super().on_fit_start()
        if self.contribution == "last_layer" and self.encoder.modalities == 2:
            logger.warning(
                "contribution is 'last_layer', as in the released code: it stays at chance whatever decides, and which "
                "modality GM-Coord slows is a coin flip. 'masked_head' tells them apart"
            )

    def after_hand_over(self, report: HandOver) -> None:
        """Say where the earlier training measured contributions in another way."""
        earlier = report.settings.get("contribution", self.contribution)
        if earlier != self.contribution:
            logger.info(
                "'%s' was trained with contribution '%s'; this training goes by '%s'",
                self.init_from,
                earlier,
                self.contribution,
            )

    def setup(self, stage: str) -> None:
        """Take the names from the data where none were given."""
        if not hasattr(self, "head"):
            self.build_head(self.names_in(self.data))
        super().setup(stage)

    def build_head(self, names: Sequence[str]) -> None:
        """Make the head and the metrics, once the names are known.

        Raises:
            UserError: no name, or one that occurs twice.
        """
        if not names:
            raise UserError(f"the list of {self.called} is empty")
        self.names = tuple(names)
        self.number_of = {name: number for number, name in enumerate(names)}
        if len(self.number_of) != len(names):
            raise UserError(f"the list of {self.called} holds one of them twice")
        self.hparams[self.called] = list(names)
        self.head = SplitHead(self.encoder.width, len(names), self.encoder.modalities).to(self.device)
        self.validation_scores = self.new_scores(len(names))
        self.test_scores = self.new_scores(len(names))

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Encoders at lr; fusion and head at their multiples."""
        head = ParameterGroup("head", list(self.head.parameters()), self.optimizer_config.head_multiplier)
        return [*self.encoder_groups(), head]

    # Forward

    def labels(self, batch: BatchT) -> Tensor:
        """(B,) int64 numbers of the true names, -1 where one is none of the head's."""
        return torch.tensor([self.number_of.get(name, -1) for name in self.truths(batch)], device=self.device)

    def pool(self, batch: ImageTextBatch) -> Pooled:
        """The batch's pooled features, from what `inputs` lets the model see."""
        pixels = self.encoder.vision.normalize(batch.image)
        input_ids, attention_mask = batch.input_ids, batch.attention_mask
        if self.inputs == "text":
            pixels = torch.zeros_like(pixels)
        elif self.inputs == "image":
            input_ids, attention_mask = input_ids[:, :1], attention_mask[:, :1]
        return self.encoder.pooled(pixels, input_ids, attention_mask, batch.image_index)

    def pooled_features(self, batch: ImageTextBatch) -> Mapping[str, Tensor]:
        """See `umd.protocols.HasPooledFeatures`."""
        pooled = self.pool(batch)
        return {name: rows for name, rows in (("image", pooled.image), ("text", pooled.text)) if rows.shape[1]}

    def forward(self, batch: ImageTextBatch) -> Tensor:
        """Logits over the names, (B, A)."""
        logits: Tensor = self.head(self.pool(batch))
        return logits

    def ranked(self, logits: Tensor, most: int = SHOWN) -> list[list[Ranked]]:
        """The likeliest names of each sample, best first, with their probabilities at the temperature."""
        return ranked(self.names, logits, self.probabilities(logits.float() / self.temperature), most)

    def decisive(self, logits: Tensor) -> Tensor:
        """Those of (B, A) logits that the probability of the chosen name depends on."""
        return logits

    def confidences(self, logits: Tensor, best: Sequence[Sequence[Ranked]]) -> dict[str, list[float]]:
        """Columns of how sure the best names are: at the temperature and, where that is not 1, without one."""
        columns = {"confidence": [round(of_one[0].probability, 4) for of_one in best]}
        if self.temperature != 1:
            untempered = self.probabilities(logits).amax(1).tolist()
            columns["untempered_confidence"] = [round(probability, 4) for probability in untempered]
        return columns

    # Steps

    def training_step(self, batch: BatchT, batch_idx: int) -> Tensor:
        """The loss of one batch; contributions are added to this step's sums."""
        self.temperature = 1.0  # it was that of other weights
        labels = self.labels(batch)
        pooled = self.pool(batch)
        logits: Tensor = self.head(pooled)
        if self.encoder.modalities == 2:
            self.add_contributions(self.head.contributions(pooled, labels, self.contribution))
        loss = self.loss(logits, labels)
        correct = (logits.detach().argmax(1) == labels).float().mean() * 100
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        self.log("train/accuracy", correct, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: BatchT, batch_idx: int) -> None:
        """Add the batch to the metric; log the loss."""
        logits, labels = self(batch), self.labels(batch)
        self.update(self.validation_scores, batch, logits, labels)
        columns = (batch.index, self.decisive(logits), self.right(batch, logits))
        self._validated.add(*with_truth(self.truths(batch), *columns))
        logits, labels = with_truth(self.truths(batch), logits, labels)
        loss = self.loss(logits, labels) if len(labels) else logits.new_zeros(())
        self.log("validation/loss", loss, batch_size=len(labels), sync_dist=True)

    def test_step(self, batch: BatchT, batch_idx: int) -> list[Row]:  # type: ignore[override] # Lightning passes it on
        """Add the batch to the metric; the rows of `predict_step`."""
        logits: Tensor = self(batch)
        self.update(self.test_scores, batch, logits, self.labels(batch))
        return self.rows(batch, logits)

    def predict_step(self, batch: BatchT, batch_idx: int) -> list[Row]:
        """One row a sample, see `rows`."""
        return self.rows(batch, self(batch))

    def on_validation_epoch_start(self) -> None:
        """Forget an earlier one."""
        self._validated.clear()

    def on_validation_epoch_end(self) -> None:
        """Log the metric's values in per cent; fit the temperature of these weights."""
        self._log_scores("validation", self.validation_scores)
        if not (self.trainer.sanity_checking or validates_on_test(self.data)):
            self.temperature = self._validated.temperature(self.probabilities)
        self._validated.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for every stage, with the temperature."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[TEMPERATURE_KEY] = self.temperature

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for every stage; of a checkpoint from before there were temperatures it is 1."""
        super().on_load_checkpoint(checkpoint)
        self.temperature = float(checkpoint.get(TEMPERATURE_KEY, 1.0))

    def on_test_epoch_end(self) -> None:
        """Log the same, and keep the table for `test_report`."""
        self._test_rows = self.test_scores.report()
        self._test_notes = self.notes(self.test_scores) if self._test_rows else [NOTHING_TO_COMPARE]
        self._log_scores("test", self.test_scores)

    def _log_scores(self, split: str, scores: ScoresT) -> None:
        for name, value in scores.compute().items():
            self.log(f"{split}/{name}", value, prog_bar=name == self.headline, rank_zero_only=False)
        scores.reset()

    def test_report(self) -> Mapping[str, Any]:
        """See `umd.protocols.HasReport`; a control is called one."""
        title, notes = report_heading(self.data, self.lineage())
        config = self.encoder.config
        if self.encoder.modalities == 1:
            title += f", text-only ({config.text})" if config.vision is None else f", image-only ({config.vision})"
        elif self.inputs != "both":
            title += f", {self.inputs}-only control"
        rows = {"columns": list(self.columns), "rows": self._test_rows}
        return {"title": title, "notes": [*notes, *self._test_notes], **rows}
