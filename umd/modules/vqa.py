"""Visual question answering as classification over an answer vocabulary (UMD section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from umd.batch import VQABatch
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.heads.split_head import Contribution
from umd.losses.answering import answer_loss
from umd.metrics.vqa import VQAAccuracy
from umd.modules.answering import AnsweringModule, Inputs
from umd.modules.outcomes import Row, question_rows
from umd.optim import OptimizerConfig
from umd.protocols import HasAnswers


class VQAClassifier(AnsweringModule):
    """Choose each question's answer from a vocabulary, with a head whose two halves can be weighed apart.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of MR-Pretrain or TD-Calib; null starts from the encoders' own weights.
        answers: the answer vocabulary; null takes the data module's when training starts.
        contribution: how a modality's contribution (Eq. 10) is measured: by its half of the head's last layer
            ("last_layer"), or by the whole head with the other half of z set to zero ("masked_head").
        inputs: "both", or one of "image" and "text" for a control that never sees the other: images turn
            uniformly grey, or questions are cut to their start token.
    """

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(image_size=384),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(  # noqa: B008 - frozen
            lr=5e-6, head_multiplier=50.0, weight_decay=0.1, schedule="cosine"
        ),
        init_from: str | None = None,
        answers: list[str] | None = None,
        contribution: Contribution = "last_layer",
        inputs: Inputs = "both",
    ) -> None:
        super().__init__(encoder, optimizer, init_from, contribution, inputs)
        self.validation_accuracy = VQAAccuracy()
        self.test_accuracy = VQAAccuracy()
        self._test_rows: list[dict[str, Any]] = []
        if answers is not None:
            self.build_head(answers, "answers")

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer vocabulary."""
        return self.names

    def setup(self, stage: str) -> None:
        """Take the answer vocabulary from the data where none was given."""
        if not hasattr(self, "head"):
            data = getattr(self.trainer, "datamodule", None)
            if not isinstance(data, HasAnswers):
                raise UserError("VQAClassifier needs `answers`, or a data module for question answering")
            self.build_head(data.answers, "answers")
        super().setup(stage)

    def labels(self, batch: VQABatch) -> Tensor:
        """(B,) int64 numbers of the true answers, -1 where an answer is not in the vocabulary."""
        return self.numbers(batch.answers)

    def training_step(self, batch: VQABatch, batch_idx: int) -> Tensor:
        """The loss of one batch; contributions are added to this step's sums."""
        labels = self.labels(batch)
        logits = self.training_logits(batch, labels)
        loss = answer_loss(logits, labels)
        correct = (logits.detach().argmax(1) == labels).float().mean() * 100
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        self.log("train/accuracy", correct, prog_bar=True, batch_size=len(batch))
        return loss

    def _evaluate(self, batch: VQABatch, accuracy: VQAAccuracy) -> Tensor:
        logits: Tensor = self(batch)
        labels = self.labels(batch)
        accuracy.update(batch.index, logits.argmax(1) == labels, batch.closed, batch.has_twin, labels >= 0)
        return logits

    def validation_step(self, batch: VQABatch, batch_idx: int) -> None:
        """Count right answers; log the loss."""
        logits = self._evaluate(batch, self.validation_accuracy)
        loss = answer_loss(logits, self.labels(batch))
        self.log("validation/loss", loss, batch_size=len(batch), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log open, closed and overall accuracy in per cent."""
        self._log_accuracy("validation", self.validation_accuracy, prog_bar=True)

    def test_step(self, batch: VQABatch, batch_idx: int) -> list[Row]:  # type: ignore[override] # Lightning passes it on
        """Count right answers; the rows of `predict_step`."""
        return self._rows(batch, self._evaluate(batch, self.test_accuracy))

    def on_test_epoch_end(self) -> None:
        """Log the accuracies and keep the table for `test_report`."""
        self._test_rows = self.test_accuracy.report()
        self._log_accuracy("test", self.test_accuracy, prog_bar=False)

    def _log_accuracy(self, split: str, accuracy: VQAAccuracy, prog_bar: bool) -> None:
        for group, value in accuracy.compute().items():
            self.log(f"{split}/{group}", value, prog_bar=prog_bar and group == "overall", rank_zero_only=False)
        accuracy.reset()

    def test_report(self) -> Mapping[str, Any]:
        """See `umd.protocols.HasReport`."""
        title, notes = self.report_heading()
        notes.append(
            "Accuracy in per cent with a 95 % bootstrap interval over questions; ceiling: share of questions whose "
            f"answer is among the {len(self.answers)} that the model can give."
        )
        columns = [
            "group",
            "questions",
            "accuracy",
            "interval_low",
            "interval_high",
            "ceiling",
            "share_of_ceiling",
        ]
        return {"title": title, "notes": notes, "columns": columns, "rows": self._test_rows}

    def predict_step(self, batch: VQABatch, batch_idx: int) -> list[Row]:
        """One row a question: what was asked, what is answered, how sure, what is true, and whether that is it."""
        return self._rows(batch, self(batch))

    def _rows(self, batch: VQABatch, logits: Tensor) -> list[Row]:
        # Not the largest probability: of many answers that are all but certain, several round to 1.
        number = logits.argmax(1)
        confidence = logits.float().sigmoid().gather(1, number[:, None])[:, 0]
        answers = [self.answers[chosen] for chosen in number.tolist()]
        return question_rows(
            batch,
            given={"answer": answers, "confidence": [round(sure, 4) for sure in confidence.tolist()]},
            judged={"correct": [answer == truth for answer, truth in zip(answers, batch.answers, strict=True)]},
        )
