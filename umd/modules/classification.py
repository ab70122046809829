"""Classification of image-text pairs (UMD section 3.3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from umd.batch import ClassificationBatch
from umd.encoders import EncoderConfig
from umd.files import UserError
from umd.heads.split_head import Contribution
from umd.losses.classification import classification_loss
from umd.metrics.classification import CLASSIFICATION_REPORT_COLUMNS, ClassificationScores
from umd.metrics.images import image_numbers
from umd.modules.choice import ChoiceStage, Inputs
from umd.modules.outcomes import Row, as_rows, judged, with_truth
from umd.modules.ranked import ranked_columns
from umd.optim import OptimizerConfig
from umd.protocols import HasClasses


class Classification(ChoiceStage[ClassificationBatch, ClassificationScores]):
    """Tell the class of a pair, with a head whose two halves can be weighed apart.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of MR-Pretrain or TD-Calib; null starts from the encoders' own weights.
        classes: names of the classes; null takes the data module's when training starts.
        contribution: how a modality's contribution (Eq. 10) is measured: by the whole head with the other half of z
            set to zero ("masked_head"), or by its half of the head's last layer ("last_layer", only to reproduce the
            released code: it stays at chance whatever decides).
        inputs: "both", or one of "image" and "text" for a control that never sees the other: images turn
            uniformly grey, or texts are cut to their start token.
    """

    called = "classes"
    columns = CLASSIFICATION_REPORT_COLUMNS
    headline = "accuracy"

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(image_size=384),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(  # noqa: B008 - frozen
            lr=5e-6, head_multiplier=10.0, weight_decay=0.01, schedule="cosine"
        ),
        init_from: str | None = None,
        classes: list[str] | None = None,
        contribution: Contribution = "masked_head",
        inputs: Inputs = "both",
    ) -> None:
        super().__init__(encoder, optimizer, init_from, contribution, inputs)
        if classes is not None:
            self.build_head(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.names

    def names_in(self, data: object) -> Sequence[str]:
        """The data's classes."""
        if not isinstance(data, HasClasses):
            raise UserError("Classification needs `classes`, or a data module for classification")
        return data.classes

    def new_scores(self, count: int) -> ClassificationScores:
        """Accuracy, macro AUC, macro sensitivity and macro specificity."""
        return ClassificationScores(count).to(self.device)

    def truths(self, batch: ClassificationBatch) -> Sequence[str]:
        """The true classes."""
        return batch.labels

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy over the samples whose class is known."""
        return classification_loss(logits, labels)

    def update(self, scores: ClassificationScores, batch: ClassificationBatch, logits: Tensor, labels: Tensor) -> None:
        """Keep the probabilities."""
        columns = (batch.index, image_numbers(batch.image_names), self.probabilities(logits), labels)
        scores.update(*with_truth(batch.labels, *columns))

    def right(self, batch: ClassificationBatch, logits: Tensor) -> Tensor:
        """Whether the likeliest class is the true one."""
        return logits.argmax(1) == self.labels(batch)

    def probabilities(self, logits: Tensor) -> Tensor:
        """They add up to 1."""
        return logits.float().softmax(1)

    def notes(self, scores: ClassificationScores) -> list[str]:
        """What the macro averages are over."""
        occurring, unknown = scores.occurring
        notes = [
            "In per cent, with 95 % bootstrap intervals over samples and over images; macro averages are over the "
            f"{occurring} of {len(self.classes)} classes that occur in this split."
        ]
        if unknown:
            notes.append(
                f"{unknown} samples are of classes that the model does not have: they count as wrong, and in macro "
                "sensitivity as one more class of which none is found."
            )
        return notes

    def rows(self, batch: ClassificationBatch, logits: Tensor) -> list[Row]:
        """One row a sample: its class, how sure, the true one, and whether that is it."""
        best = self.ranked(logits)
        labels = [of_one[0].name for of_one in best]
        truths = [(label,) if label else () for label in batch.labels]
        return as_rows(
            {
                "index": batch.index.tolist(),
                "sample_id": batch.sample_ids,
                "image": batch.image_names,
                "text": batch.texts,
                "label": labels,
                **self.confidences(logits, best),
                "ground_truth": batch.labels,
                "correct": judged(labels, truths),
                **ranked_columns("label", best),
            }
        )
