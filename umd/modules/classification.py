"""Classification of image-text pairs (UMD section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from umd.batch import ClassificationBatch
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.heads.split_head import Contribution
from umd.losses.classification import classification_loss
from umd.metrics.classification import CLASSIFICATION_REPORT_COLUMNS, ClassificationScores
from umd.modules.answering import AnsweringModule, Inputs
from umd.modules.outcomes import Row, as_rows
from umd.optim import OptimizerConfig
from umd.protocols import HasClasses


class Classification(AnsweringModule):
    """Tell the class of a pair, with a head whose two halves can be weighed apart.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of MR-Pretrain or TD-Calib; null starts from the encoders' own weights.
        classes: names of the classes; null takes the data module's when training starts.
        contribution: how a modality's contribution (Eq. 10) is measured: by its half of the head's last layer
            ("last_layer"), or by the whole head with the other half of z set to zero ("masked_head").
        inputs: "both", or one of "image" and "text" for a control that never sees the other: images turn
            uniformly grey, or texts are cut to their start token.
    """

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(image_size=384),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(  # noqa: B008 - frozen
            lr=5e-6, head_multiplier=10.0, weight_decay=0.01, schedule="cosine"
        ),
        init_from: str | None = None,
        classes: list[str] | None = None,
        contribution: Contribution = "last_layer",
        inputs: Inputs = "both",
    ) -> None:
        super().__init__(encoder, optimizer, init_from, contribution, inputs)
        self._test_rows: list[dict[str, Any]] = []
        self._test_notes: list[str] = []
        if classes is not None:
            self.build_head(classes, "classes")

    def build_head(self, names: Sequence[str], called: str) -> None:
        """The head, and metrics for as many classes."""
        super().build_head(names, called)
        self.validation_scores = ClassificationScores(len(names)).to(self.device)
        self.test_scores = ClassificationScores(len(names)).to(self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.names

    def setup(self, stage: str) -> None:
        """Take the classes from the data where none were given."""
        if not hasattr(self, "head"):
            data = getattr(self.trainer, "datamodule", None)
            if not isinstance(data, HasClasses):
                raise UserError("Classification needs `classes`, or a data module for classification")
            self.build_head(data.classes, "classes")
        super().setup(stage)

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """The loss of one batch; contributions are added to this step's sums."""
        labels = self.numbers(batch.labels)
        logits = self.training_logits(batch, labels)
        loss = classification_loss(logits, labels)
        correct = (logits.detach().argmax(1) == labels).float().mean() * 100
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        self.log("train/accuracy", correct, prog_bar=True, batch_size=len(batch))
        return loss

    def _evaluate(self, batch: ClassificationBatch, scores: ClassificationScores) -> Tensor:
        logits: Tensor = self(batch)
        labels = self.numbers(batch.labels)
        scores.update(batch.index, logits.float().softmax(1), labels)
        return logits

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        """Keep the probabilities; log the loss."""
        logits = self._evaluate(batch, self.validation_scores)
        loss = classification_loss(logits, self.numbers(batch.labels))
        self.log("validation/loss", loss, batch_size=len(batch), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy, macro AUC, macro sensitivity and macro specificity in per cent."""
        self._log_scores("validation", self.validation_scores)

    def test_step(self, batch: ClassificationBatch, batch_idx: int) -> list[Row]:  # type: ignore[override] # Lightning passes it on
        """Keep the probabilities; the rows of `predict_step`."""
        return self._rows(batch, self._evaluate(batch, self.test_scores))

    def on_test_epoch_end(self) -> None:
        """Log the same, and keep the table for `test_report`."""
        self._test_rows = self.test_scores.report()
        occurring, unknown = self.test_scores.occurring
        self._test_notes = [
            "In per cent, with a 95 % bootstrap interval over samples; macro averages are over the "
            f"{occurring} of {len(self.classes)} classes that occur in this split."
        ]
        if unknown:
            self._test_notes.append(
                f"{unknown} samples are of classes that the model does not have: they count as wrong, and in macro "
                "sensitivity as one more class of which none is found."
            )
        self._log_scores("test", self.test_scores)

    def _log_scores(self, split: str, scores: ClassificationScores) -> None:
        for name, value in scores.compute().items():
            self.log(f"{split}/{name}", value, prog_bar=name == "accuracy", rank_zero_only=False)
        scores.reset()

    def test_report(self) -> Mapping[str, Any]:
        """See `umd.protocols.HasReport`."""
        title, notes = self.report_heading()
        return {
            "title": title,
            "notes": [*notes, *self._test_notes],
            "columns": list(CLASSIFICATION_REPORT_COLUMNS),
            "rows": self._test_rows,
        }

    def predict_step(self, batch: ClassificationBatch, batch_idx: int) -> list[Row]:
        """One row a sample: its class, how sure, the true one, and whether that is it."""
        return self._rows(batch, self(batch))

    def _rows(self, batch: ClassificationBatch, logits: Tensor) -> list[Row]:
        confidence, number = logits.float().softmax(1).max(1)  # as the metrics see it
        labels = [self.classes[chosen] for chosen in number.tolist()]
        return as_rows(
            {
                "index": batch.index.tolist(),
                "sample_id": batch.sample_ids,
                "image": batch.image_names,
                "text": batch.texts,
                "label": labels,
                "confidence": [round(sure, 4) for sure in confidence.tolist()],
                "ground_truth": batch.labels,
                "correct": [label == truth for label, truth in zip(labels, batch.labels, strict=True)],
            }
        )
