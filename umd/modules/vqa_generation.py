"""Visual question answering by writing the answer: GGP's fine-tuning (GGP section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from umd.batch import ImageTextBatch, VQABatch
from umd.encoders.ggp import GGPConfig, GGPEncoder, build_bert
from umd.files import UserError
from umd.heads.answer_decoder import AnswerDecoder
from umd.heads.measuring import measuring
from umd.metrics.images import image_numbers
from umd.metrics.vqa import VQA_REPORT_COLUMNS, VQAAccuracy
from umd.modules.base import from_plain
from umd.modules.contributions import Contributions
from umd.modules.ggp_stage import GGPStage
from umd.modules.outcomes import (
    NOTHING_TO_COMPARE,
    Row,
    judged,
    question_rows,
    report_heading,
    test_groups,
    with_truth,
)
from umd.modules.ranked import SHOWN, Ranked
from umd.optim import OptimizerConfig, ParameterGroup
from umd.protocols import HasAnswers, HasAnswerTokens

GENERATED = "generated"
"""Marks what was answered freely, not from the candidates."""


@dataclass(frozen=True, kw_only=True)
class AnswerDecoderConfig:
    """The answer decoder and how it is asked. Defaults: GGP's and, where it is silent, ALBEF's.

    Attributes:
        layers: of the encoder's kind of BERT, its first ones.
        weights: null (random), "default" (hub or package) or a local folder, for a new training.
        shortlist: candidates with the likeliest first tokens whose full likelihood is compared.
        max_length: most tokens of a freely written answer, start and end token included.
    """

    layers: int = 6
    weights: str | None = None
    shortlist: int = 128
    max_length: int = 32

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        for name, least in (("layers", 1), ("shortlist", 1), ("max_length", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")


@dataclass(frozen=True, slots=True)
class States:
    """What the answer decoder reads.

    Attributes:
        joint: (B, L, D) the question's tokens, having read the image.
        mask: (B, L) bool, True at real tokens.
    """

    joint: Tensor
    mask: Tensor


class VQAGenerator(Contributions[GGPEncoder], GGPStage):
    """Write each question's answer, and answer in two ways: by ranking candidates, and freely.

    A modality's contribution (Eq. 10 of UMD) is the likelihood of the true answer where the multi-modal encoder gets
    the other modality's tokens of another question: what this modality says whatever the other one does. (With zeros
    in their place, which it never saw, a decoder of longer answers that the image alone decides gave language as much
    as vision.)

    Args:
        encoder: GGP's encoder, as in the checkpoint that `init_from` names.
        optimizer: AdamW and its schedule. The paper: lr 3e-5; the rest as in its pre-training.
        decoder: the answer decoder.
        init_from: checkpoint of the pre-training (or of another fine-tuning, whose decoder is taken too);
            null starts from the encoders' own weights.
        answers: the candidates, as a list, or with each one's token ids, as checkpoints hold them; null takes
            the data module's answers when training starts.
    """

    hands_over = ("encoder.", "decoder.")
    candidates: Tensor
    candidates_mask: Tensor

    def __init__(
        self,
        encoder: GGPConfig = GGPConfig(image_size=384),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(  # noqa: B008 - frozen
            lr=3e-5,
            fusion_multiplier=1.0,
            head_multiplier=1.0,
            weight_decay=0.02,
            betas=(0.9, 0.999),
            schedule="cosine",
            warmup_ratio=0.05,
        ),
        decoder: AnswerDecoderConfig = AnswerDecoderConfig(),
        init_from: str | None = None,
        answers: list[str] | dict[str, list[int]] | None = None,
    ) -> None:
        super().__init__(encoder, optimizer, init_from)
        self.decoding = from_plain(AnswerDecoderConfig, decoder)
        config = self.encoder.config
        self.decoder = AnswerDecoder(
            build_bert(config.text, self.decoding.weights, config.text_options, self.decoding.layers)
        )
        if self.decoding.max_length > self.decoder.max_length + 1:  # the last token is never read
            raise UserError(
                f"max_length is {self.decoding.max_length}; '{config.text}' takes at most {self.decoder.max_length}"
            )
        self.validation_accuracy = VQAAccuracy()
        self.ranking_accuracy = VQAAccuracy()
        self.generation_accuracy = VQAAccuracy()
        self._breakdown: list[Row] = []
        self._test_rows: list[dict[str, Any]] = []
        self.answers: tuple[str, ...] = ()
        if isinstance(answers, Mapping):
            self._take_candidates(answers)

    def _take_candidates(self, tokens: Mapping[str, Sequence[int]]) -> None:
        """Keep the candidates and their tokens.

        Raises:
            UserError: none, or they do not all begin and end with the same two tokens.
        """
        if not tokens:
            raise UserError("answers: there is none")
        ends = {(ids[0], ids[-1]) for ids in tokens.values() if len(ids) > 1}
        if len(ends) != 1 or any(len(ids) < 2 for ids in tokens.values()):
            raise UserError("answers: each one's tokens must begin and end with the tokenizer's start and end token")
        ((self.start, self.end),) = ends
        self.hparams["answers"] = {answer: list(ids) for answer, ids in tokens.items()}
        self.answers = tuple(tokens)
        longest = max(map(len, tokens.values()))
        ids = torch.tensor([[*row, *[self.end] * (longest - len(row))] for row in tokens.values()])
        lengths = torch.tensor([len(row) for row in tokens.values()])
        # Not among the weights: they are in the checkpoint's settings.
        self.register_buffer("candidates", ids.to(self.device), persistent=False)
        real = torch.arange(longest) < lengths[:, None]
        self.register_buffer("candidates_mask", real.to(self.device), persistent=False)

    def setup(self, stage: str) -> None:
        """Take the candidates, or their tokens, from the data where they were not given."""
        if not self.answers:
            data = self.data
            if not isinstance(data, HasAnswers) or not isinstance(data, HasAnswerTokens):
                raise UserError("VQAGenerator needs `answers` with tokens, or a data module for question answering")
            given = self.hparams["answers"]
            answers = list(data.answers if given is None else given)
            if len(set(answers)) != len(answers):
                raise UserError("answers: one of them occurs twice")
            self._take_candidates(dict(zip(answers, data.answer_tokens(answers), strict=True)))
        super().setup(stage)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Uni-modal encoders at lr; multi-modal encoder and answer decoder at their multiples."""
        return self.grouped(self.decoder.parameters())

    def forward(self, batch: ImageTextBatch) -> States:
        """The joint states of a batch's questions."""
        text = self.encoder.text(batch.input_ids, batch.attention_mask)
        return States(self.encoder.fuse(text, batch.attention_mask, self.images(batch)), batch.attention_mask)

    def images(self, batch: ImageTextBatch) -> Tensor:
        """The vision encoder's tokens for each question, (B, 1 + P, W); an image is encoded once."""
        tokens: Tensor = self.encoder.encode_images(self.encoder.vision.normalize(batch.image), batch.image_index)
        return tokens

    def log_likelihood(self, batch: VQABatch, states: States) -> Tensor:
        """Each true answer's log-likelihood, (B,)."""
        return self.decoder.log_likelihood(
            batch.answer_input_ids, batch.answer_attention_mask, states.joint, states.mask
        )

    def rank(self, states: States) -> tuple[Tensor, Tensor]:
        """The likeliest candidates of each question, best first: (B, S) int64 numbers, (B, S) log-likelihoods."""
        return self.decoder.rank(
            states.joint, states.mask, self.candidates, self.candidates_mask, self.decoding.shortlist
        )

    def ranked(self, states: States, most: int = SHOWN) -> list[list[Ranked]]:
        """The likeliest candidates of each question, best first, with their likelihoods."""
        numbers, likelihoods = self.rank(states)
        return [
            [Ranked(self.answers[number], likelihood) for number, likelihood in zip(*row, strict=True)]
            for row in zip(numbers[:, :most].tolist(), likelihoods[:, :most].exp().tolist(), strict=True)
        ]

    def generate(self, states: States) -> list[str]:
        """Freely written answers, as normalised text."""
        data = self._reader()
        written = self.decoder.generate(states.joint, states.mask, self.start, self.end, self.decoding.max_length)
        return [data.answer_text(ids) for ids in written]

    def _reader(self) -> HasAnswerTokens:
        data = self.data
        if not isinstance(data, HasAnswerTokens):
            raise UserError("written answers can only be read with a data module for question answering")
        return data

    def contributions(self, batch: VQABatch, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Each modality's likelihood of the true answer, beside the other one of a neighbour; (B,) each.

        Neighbours are questions 0 and 1, 2 and 3, ...; an odd last one has the one before it. A batch of a single
        question has no neighbour: both likelihoods are zero, and neither modality is ahead.

        Args:
            batch: the questions.
            image: (B, 1 + P, W) from the vision encoder.
            text: (B, L, D) from the text encoder.
        """
        if len(batch) == 1:
            return {"language": text.new_zeros(1), "vision": text.new_zeros(1)}
        neighbour = torch.arange(len(batch), device=text.device) ^ 1
        neighbour = torch.where(neighbour < len(batch), neighbour, len(batch) - 2)
        mask = batch.attention_mask
        alone = {
            "language": (text, mask, image[neighbour]),
            "vision": (text[neighbour], mask[neighbour], image),
        }
        with measuring(self.encoder, self.decoder):
            return {
                name: self.log_likelihood(batch, States(self.encoder.fuse(words, real, patches), real)).exp()
                for name, (words, real, patches) in alone.items()
            }

    def training_step(self, batch: VQABatch, batch_idx: int) -> Tensor:
        """The language-model loss: minus the log-likelihood of the true answers, averaged over questions."""
        image = self.images(batch)
        text = self.encoder.text(batch.input_ids, batch.attention_mask)
        joint = self.encoder.fuse(text, batch.attention_mask, image)
        loss = -self.log_likelihood(batch, States(joint, batch.attention_mask)).mean()
        self.add_contributions(self.contributions(batch, image, text))
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return loss

    def _count(
        self, batch: VQABatch, correct: Sequence[bool | None], accuracy: VQAAccuracy, free: bool = False
    ) -> None:
        # Free writing is bound to no vocabulary, so every answer is within reach.
        candidates = set(self.answers)
        known = torch.tensor([free or not candidates.isdisjoint(right) for right in batch.accepted])
        right = torch.tensor([bool(one) for one in correct])
        columns = (batch.index, image_numbers(batch.image_names), right, batch.closed, batch.has_twin, known)
        accuracy.update(*with_truth(batch.answers, *columns))

    def _rows(self, batch: VQABatch) -> list[Row]:
        states: States = self(batch)
        best = self.ranked(states)
        answers = [of_one[0].name for of_one in best]
        data, written = self._reader(), self.generate(states)
        # Some tokenizers do not give every answer back as it was: exactly its tokens are right too.
        free = [
            (*right, data.answer_text(ids)) if right else ()
            for right, ids in zip(batch.accepted, batch.answer_input_ids.tolist(), strict=True)
        ]
        return question_rows(
            batch,
            given={
                "answer": answers,
                "confidence": [round(of_one[0].probability, 4) for of_one in best],
                "generated_answer": written,
            },
            judged={"correct": judged(answers, batch.accepted), "generated_correct": judged(written, free)},
            ranked=best,
        )

    def validation_step(self, batch: VQABatch, batch_idx: int) -> None:
        """Log the loss; count right answers by ranking."""
        states: States = self(batch)
        (likelihoods,) = with_truth(batch.answers, self.log_likelihood(batch, states))
        loss = -likelihoods.mean() if len(likelihoods) else likelihoods.new_zeros(())
        self.log("validation/loss", loss, batch_size=len(likelihoods), sync_dist=True)
        answers = [of_one[0].name for of_one in self.ranked(states, most=1)]
        self._count(batch, judged(answers, batch.accepted), self.validation_accuracy)

    def on_validation_epoch_end(self) -> None:
        """Log open, closed and overall accuracy by ranking, in per cent."""
        self._log_accuracy("validation/", self.validation_accuracy, prog_bar=True)

    def test_step(self, batch: VQABatch, batch_idx: int) -> list[Row]:  # type: ignore[override] # Lightning passes it on
        """Count right answers, by ranking and written freely; the rows of `predict_step`."""
        rows = self._rows(batch)
        self._count(batch, [row["correct"] for row in rows], self.ranking_accuracy)
        self._count(batch, [row["generated_correct"] for row in rows], self.generation_accuracy, free=True)
        return rows

    def on_test_epoch_end(self) -> None:
        """Log the accuracies and keep the table for `test_report`."""
        self._test_rows = [*self.ranking_accuracy.report(), *_generated(self.generation_accuracy.report())]
        groups = test_groups(self.data)
        self._breakdown = self.ranking_accuracy.breakdown(groups)
        self._breakdown += _generated(self.generation_accuracy.breakdown(groups))
        self._log_accuracy("test/", self.ranking_accuracy, prog_bar=False)
        self._log_accuracy(f"test/{GENERATED}_", self.generation_accuracy, prog_bar=False)

    def _log_accuracy(self, prefix: str, accuracy: VQAAccuracy, prog_bar: bool) -> None:
        for group, value in accuracy.compute().items():
            self.log(f"{prefix}{group}", value, prog_bar=prog_bar and group == "overall", rank_zero_only=False)
        accuracy.reset()

    def test_report(self) -> Mapping[str, Any]:
        """See `umd.protocols.HasReport`."""
        title, notes = report_heading(self.data, self.lineage())
        notes.append(
            NOTHING_TO_COMPARE
            if not self._test_rows
            else f"Answers are chosen from {len(self.answers)} candidates by likelihood or, in the groups marked "
            f"'{GENERATED}', written freely. Accuracy in per cent with 95 % bootstrap intervals over questions and "
            "over images; ceiling: share of questions whose answer can be given at all."
        )
        rows = {"rows": self._test_rows, "breakdown": self._breakdown}
        return {"title": title, "notes": notes, "columns": list(VQA_REPORT_COLUMNS), **rows}

    def predict_step(self, batch: VQABatch, batch_idx: int) -> list[Row]:
        """One row a question: what was asked, the best candidate and how likely, what is written, what is true."""
        return self._rows(batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for every stage; the decoder's published weights are not needed again either."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["hyper_parameters"]["decoder"]["weights"] = None


def _generated(rows: Sequence[Row]) -> list[Row]:
    """The rows, their groups marked as those of written answers."""
    return [{**row, "group": f"{row['group']}, {GENERATED}"} for row in rows]
