"""Visual question answering as classification over an answer vocabulary (UMD section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from umd.batch import VQABatch
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.heads.split_head import Contribution
from umd.losses.answering import AnswerLoss, answer_cross_entropy, answer_loss
from umd.metrics.images import image_numbers
from umd.metrics.vqa import VQA_REPORT_COLUMNS, VQAAccuracy
from umd.modules.choice import ChoiceStage, Inputs
from umd.modules.outcomes import Row, judged, question_rows, test_groups, with_truth
from umd.optim import OptimizerConfig
from umd.protocols import HasAnswers


class VQAClassifier(ChoiceStage[VQABatch, VQAAccuracy]):
    """Choose each question's answer from a vocabulary, with a head whose two halves can be weighed apart.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of MR-Pretrain or TD-Calib; null starts from the encoders' own weights.
        answers: the answer vocabulary; null takes the data module's when training starts.
        contribution: how a modality's contribution (Eq. 10) is measured: by the whole head with the other half of z
            set to zero ("masked_head"), or by its half of the head's last layer ("last_layer", only to reproduce the
            released code: it stays at chance whatever decides).
        inputs: "both", or one of "image" and "text" for a control that never sees the other: images turn
            uniformly grey, or questions are cut to their start token.
        loss: "binary_cross_entropy", one sigmoid an answer (the paper's), or "cross_entropy", one softmax over all.
        label_smoothing: share of the target that "cross_entropy" spreads evenly over all answers.

    Raises:
        UserError: an argument is out of its range.
    """

    called = "answers"
    columns = VQA_REPORT_COLUMNS
    headline = "overall"

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(image_size=384),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(  # noqa: B008 - frozen
            lr=5e-6, head_multiplier=50.0, weight_decay=0.1, schedule="cosine"
        ),
        init_from: str | None = None,
        answers: list[str] | None = None,
        contribution: Contribution = "masked_head",
        inputs: Inputs = "both",
        loss: AnswerLoss = "binary_cross_entropy",
        label_smoothing: float = 0.0,
    ) -> None:
        if loss not in get_args(AnswerLoss):
            raise UserError(f"loss is '{loss}'; allowed: {', '.join(get_args(AnswerLoss))}")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing}; it must lie in [0, 1)")
        if label_smoothing and loss != "cross_entropy":
            raise UserError(f"label_smoothing is {label_smoothing}, but loss is '{loss}': it goes with 'cross_entropy'")
        super().__init__(encoder, optimizer, init_from, contribution, inputs)
        self.answer_loss: AnswerLoss = loss
        self.label_smoothing = label_smoothing
        self._breakdown: list[Row] = []
        if answers is not None:
            self.build_head(answers)

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer vocabulary."""
        return self.names

    def names_in(self, data: object) -> Sequence[str]:
        """The data's answer vocabulary."""
        if not isinstance(data, HasAnswers):
            raise UserError("VQAClassifier needs `answers`, or a data module for question answering")
        return data.answers

    def new_scores(self, count: int) -> VQAAccuracy:
        """Open, closed and overall accuracy."""
        return VQAAccuracy().to(self.device)

    def truths(self, batch: VQABatch) -> Sequence[str]:
        """The true answers."""
        return batch.answers

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy summed over answers, or cross-entropy; see `umd.losses.answering`."""
        if self.answer_loss == "cross_entropy":
            return answer_cross_entropy(logits, labels, self.label_smoothing)
        return answer_loss(logits, labels)

    def update(self, scores: VQAAccuracy, batch: VQABatch, logits: Tensor, labels: Tensor) -> None:
        """Count right answers."""
        correct, answerable = self.right(batch, logits), (self._accepted_numbers(batch) >= 0).any(1)
        columns = (batch.index, image_numbers(batch.image_names), correct, batch.closed, batch.has_twin, answerable)
        scores.update(*with_truth(batch.answers, *columns))

    def right(self, batch: VQABatch, logits: Tensor) -> Tensor:
        """Whether the likeliest answer is an accepted one."""
        return (logits.argmax(1)[:, None] == self._accepted_numbers(batch)).any(1)

    def decisive(self, logits: Tensor) -> Tensor:
        """The largest where each answer's sigmoid is its own."""
        return logits if self.answer_loss == "cross_entropy" else logits.amax(1, keepdim=True)

    def _accepted_numbers(self, batch: VQABatch) -> Tensor:
        """(B, K) int64 numbers of the accepted answers, -1 where one is not in the vocabulary, or is none."""
        most = max(1, *map(len, batch.accepted))
        numbers = [[self.number_of.get(answer, -1) for answer in answers] for answers in batch.accepted]
        return torch.tensor([[*row, *[-1] * (most - len(row))] for row in numbers], device=self.device)

    def probabilities(self, logits: Tensor) -> Tensor:
        """One sigmoid an answer, which need not add up to 1, or one softmax: as the loss has it."""
        return logits.float().softmax(1) if self.answer_loss == "cross_entropy" else logits.float().sigmoid()

    def notes(self, scores: VQAAccuracy) -> list[str]:
        """What accuracy and ceiling are."""
        return [
            "Accuracy in per cent with 95 % bootstrap intervals over questions and over images, whose questions are "
            "not independent; ceiling: share of questions whose answer is "
            f"among the {len(self.answers)} that the model can give."
        ]

    def on_test_epoch_end(self) -> None:
        """As for every choice, and keep the breakdown."""
        super().on_test_epoch_end()
        self._breakdown = self.test_scores.breakdown(test_groups(self.data))

    def test_report(self) -> Mapping[str, Any]:
        """See `umd.protocols.HasReport`; with the groups that the data tells apart."""
        return {**super().test_report(), "breakdown": self._breakdown}

    def rows(self, batch: VQABatch, logits: Tensor) -> list[Row]:
        """One row a question: what was asked, what is answered, how sure, what is true, and whether that is it."""
        best = self.ranked(logits)
        answers = [of_one[0].name for of_one in best]
        return question_rows(
            batch,
            given={"answer": answers, **self.confidences(logits, best)},
            judged={"correct": judged(answers, batch.accepted)},
            ranked=best,
        )
