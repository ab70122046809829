"""Image-text retrieval by scoring pairs (UMD section 3.3.2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from umd.batch import ImageTextBatch, RetrievalBatch
from umd.checkpoints import HandOver, read_checkpoint
from umd.encoders import EncoderConfig, MultimodalEncoder, Pooled
from umd.encoders.pair_fusion import Alone, PairFusion
from umd.files import UserError
from umd.heads.pair_scorer import PairScorer
from umd.losses.contrastive import unit
from umd.losses.first_pass import first_pass_loss
from umd.losses.ranking import ranking_loss
from umd.metrics.gallery import Cache, Gallery, GalleryBuilder, join_rows
from umd.metrics.retrieval import (
    RECALL_REPORT_COLUMNS,
    Scores,
    first_pass_notes,
    recall,
    recall_lost,
    recall_report,
    shortlists,
)
from umd.modules.contributions import Contributions
from umd.modules.outcomes import report_heading
from umd.modules.umd_stage import UMDStage
from umd.optim import OptimizerConfig, ParameterGroup

logger = logging.getLogger(__name__)

MANY_PAIRS = 200_000
"""From here on, scoring all pairs takes long enough to say so."""

TEXTS_AT_ONCE = 512
"""Texts that wait half fused: 0.4 GB of base size and 64 tokens."""

CACHED_NUMBERS = 2**23
"""What a pass on a CPU makes at most in a layer: more than its cache holds is slower."""

FIRST_PASS_WIDTH = 256
FIRST_PASS_LR = 1e-3
"""For two matrices that start at random, whatever the encoders' rate."""

SHOWN = 5
"""Texts that a prediction lists for an image."""


class Retrieval(Contributions[MultimodalEncoder], UMDStage):
    """Find the text of an image, and the image of a text, by a score for the fused pair.

    The score starts as the "match" output of the pre-training's matching head, where the checkpoint that
    `init_from` names has one. Each image and text goes through its own encoder once; only the fusion runs for
    every pair. Evaluation ranks all texts of the split for each image and all images for each text.

    Args:
        encoder: the multi-modal encoder, as in the checkpoint that `init_from` names; `pooling: mean_padded`
            is refused, because scores would depend on how far a text happens to be padded.
        optimizer: AdamW and its schedule.
        init_from: checkpoint of MR-Pretrain or TD-Calib; null starts from the encoders' own weights.
        rerank: null scores every pair. A number k scores only each query's k nearest by a first pass, the cosine
            that presets clip and flip have trained, or `train_first_pass` here; a true pair that is not among them
            counts as never found. Refused where nothing has trained it. Look at the share of true pairs that survive,
            which is logged and reported: fine-tuning moves the encoders away from what an earlier stage has trained.
        pairs_per_pass: most pairs, all of one image, that are fused at once in evaluation; on a CPU there are fewer
            where they would not fit into its cache.
        cache: where image features wait in evaluation: "cpu", or "device" where the GPU has room for them
            (2,000 images of 577 tokens of 768 numbers: 1.8 GB in half precision).
        contrast_width: size of the vectors that the first pass compares; null takes it from `init_from`, if there is
            one, or is 256 with `train_first_pass`.
        train_first_pass: train the first pass along, for `rerank` later: InfoNCE between the images and the texts of a
            batch, over two projections of the uni-modal encoders' first tokens. No gradient goes on to the encoders,
            and clipping leaves it out, so that all other weights come out as they would without it; not so under
            `callbacks.SharpnessAware`, which goes by the norm of all gradients.
        rerank_check: a number n scores n drawn queries each way against everything in a test, so that the table says
            what re-ranking costs in recall; null only bounds it.
    """

    hands_over = ("encoder.", "scorer.", "image_contrast.", "text_contrast.")

    def __init__(
        self,
        encoder: EncoderConfig = EncoderConfig(image_size=384),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(  # noqa: B008 - frozen
            lr=5e-6, head_multiplier=5.0, weight_decay=0.1, schedule="cosine"
        ),
        init_from: str | None = None,
        rerank: int | None = None,
        pairs_per_pass: int = 256,
        cache: Cache = "cpu",
        contrast_width: int | None = None,
        train_first_pass: bool = False,
        rerank_check: int | None = None,
    ) -> None:
        if cache not in get_args(Cache):
            raise UserError(f"cache is '{cache}'; allowed: {', '.join(get_args(Cache))}")
        for name, value in (
            ("rerank", rerank),
            ("pairs_per_pass", pairs_per_pass),
            ("contrast_width", contrast_width),
            ("rerank_check", rerank_check),
        ):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        if rerank_check is not None and rerank is None:
            raise UserError(
                f"rerank_check is {rerank_check}, but rerank is null: every pair is scored, nothing is lost"
            )
        super().__init__(encoder, optimizer, init_from)
        if self.encoder.config.pooling == "mean_padded":
            raise UserError("pooling is 'mean_padded'; retrieval allows: first, mean")
        self.rerank = rerank
        self.rerank_check = rerank_check
        self.train_first_pass = train_first_pass
        self.pairs_per_pass = pairs_per_pass
        self.scorer = PairScorer(self.encoder.width)
        self._gallery = GalleryBuilder(cache)
        self._test_rows: list[dict[str, Any]] = []
        self._test_notes: list[str] = []
        if train_first_pass:
            with torch.random.fork_rng(devices=[]):  # what is drawn after it is what would be drawn without it
                self._build_contrast(contrast_width or FIRST_PASS_WIDTH)
        elif contrast_width is not None:
            self._build_contrast(contrast_width)

    def _build_contrast(self, width: int) -> None:
        """The first pass's projections; without `train_first_pass` they stay as presets clip and flip made them."""
        self.hparams["contrast_width"] = width
        heads = (nn.Linear(encoder.width, width, bias=False) for encoder in (self.encoder.vision, self.encoder.text))
        self.image_contrast, self.text_contrast = (
            head.requires_grad_(self.train_first_pass).to(self.device) for head in heads
        )

    def on_fit_start(self) -> None:
        """As for every stage, with the contrast of the earlier stage, if it has one."""
        if self.init_from and not self.trainer.ckpt_path:
            self._build_contrast_as_in(read_checkpoint(self.init_from, mapped=True))
        self.check_first_pass()
        super().on_fit_start()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for every stage, with the contrast that the checkpoint holds."""
        super().on_load_checkpoint(checkpoint)
        self._build_contrast_as_in(checkpoint)

    def _build_contrast_as_in(self, checkpoint: Mapping[str, Any]) -> None:
        weight = checkpoint["state_dict"].get("image_contrast.weight")
        if weight is not None and not hasattr(self, "image_contrast"):
            self._build_contrast(len(weight))

    def check_first_pass(self) -> None:
        """Raise UserError where a first pass is asked for and nothing has trained it."""
        self.check_tokenizer()
        if self.rerank is not None and not hasattr(self, "image_contrast"):
            raise UserError(
                f"rerank is {self.rerank}, but nothing has trained a first pass: a pre-training with preset clip or "
                "flip does, and a fine-tuning with train_first_pass. Leave rerank at null: every pair is scored then"
            )

    on_validation_start = on_test_start = on_predict_start = check_first_pass

    def translate(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The matching head's "match" row becomes the score's layer."""
        mine = dict(weights)
        for part in ("weight", "bias"):
            rows = mine.pop(f"matching_head.{part}", None)
            if rows is not None:
                mine[f"scorer.linear.{part}"] = rows[1:]
        return mine

    def after_hand_over(self, report: HandOver) -> None:
        """Say where the score starts at random."""
        if any(name.startswith("scorer.") for name in report.missing):
            logger.warning("'%s' has no matching head: the score starts at random", self.init_from)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Encoders at lr; fusion and score at their multiples; a first pass that is trained at its own rate."""
        head = ParameterGroup("head", list(self.scorer.parameters()), self.optimizer_config.head_multiplier)
        groups = [*self.encoder_groups(), head]
        if self.train_first_pass:
            projections = [*self.image_contrast.parameters(), *self.text_contrast.parameters()]
            groups.append(ParameterGroup("first_pass", projections, FIRST_PASS_LR / self.optimizer_config.lr))
        return groups

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, but for the first pass: its gradients are neither clipped nor in the total norm."""
        apart = [*self.image_contrast.parameters(), *self.text_contrast.parameters()] if self.train_first_pass else []
        gradients = [weight.grad for weight in apart]
        for weight in apart:
            weight.grad = None
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        for weight, gradient in zip(apart, gradients, strict=True):
            weight.grad = gradient

    def fuse(self, text: Tensor, text_mask: Tensor, image: Tensor) -> Pooled:
        """Pooled features of N pairs, from (N, L, W_T) and (N, 1 + P, W_I) of the uni-modal encoders."""
        return self.encoder.fuse_pooled(text, text_mask, image)

    def encode_candidates(self, batch: RetrievalBatch) -> tuple[Tensor, Tensor, Tensor]:
        """B images and B * (1 + N) texts, each image's own first: (B, 1 + P, W_I), the texts' (.., L, W_T) and mask."""
        ids = torch.cat([batch.input_ids[:, None], batch.negative_input_ids], dim=1)
        mask = torch.cat([batch.attention_mask[:, None], batch.negative_attention_mask], dim=1).flatten(0, 1)
        image = self.encoder.encode_images(self.encoder.vision.normalize(batch.image), batch.image_index)
        return image, self.encoder.text(ids.flatten(0, 1), mask), mask

    def forward(self, batch: RetrievalBatch) -> Tensor:
        """Scores (B, 1 + N) of each image's own text and of its negatives."""
        image, text, mask = self.encode_candidates(batch)
        pooled = self.fuse(text, mask, image.repeat_interleave(len(text) // len(image), dim=0))
        scores: Tensor = self.scorer(pooled)
        return scores.reshape(len(batch), -1)

    def training_step(self, batch: RetrievalBatch, batch_idx: int) -> Tensor:
        """The loss of one batch; contributions are added to this step's sums."""
        texts = 1 + batch.negative_input_ids.shape[1]
        if texts == 1:
            raise UserError(
                "retrieval learns from one true text against negatives, and the batch has none: see data.negatives"
            )
        image, text, mask = self.encode_candidates(batch)
        pooled = self.fuse(text, mask, image.repeat_interleave(texts, dim=0))
        scores = self.scorer(pooled).reshape(-1, texts)
        loss = ranking_loss(scores)
        self.add_contributions(self.scorer.contributions(pooled, texts))
        first = (scores.detach().argmax(1) == 0).float().mean() * 100
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        self.log("train/accuracy", first, prog_bar=True, batch_size=len(batch))
        if not self.train_first_pass:
            return loss
        seen = self.image_contrast(image[:, 0].detach()), self.text_contrast(text[::texts, 0].detach())
        contrast = first_pass_loss(*seen, batch.image_names, batch.texts)
        self.log("train/first_pass", contrast.detach(), batch_size=len(batch))
        return loss + contrast

    def collect(self, batch: ImageTextBatch) -> None:
        """Encode a batch's images and texts, for the end of the epoch."""
        text = self.encoder.text(batch.input_ids, batch.attention_mask)
        image = self.encoder.encode_images(self.encoder.vision.normalize(batch.image), batch.image_index)
        self._gallery.add(batch, text, image)

    def forget_gallery(self) -> None:
        """Start a new pass."""
        self._gallery.clear()

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = forget_gallery

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Encode images and texts."""
        self.collect(batch)

    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Encode images and texts."""
        self.collect(batch)

    def on_validation_epoch_end(self) -> None:
        """Log Recall@1/5/10 both ways and their mean in per cent, over all pairs of the split."""
        self._log_recall("validation", self.score(self._gallery.join()))

    def on_test_epoch_end(self) -> None:
        """The same, and keep the table for `test_report`."""
        gallery = self._gallery.join()
        scores = self.score(gallery)
        self._log_recall("test", scores)
        self._test_rows = recall_report(scores.ranks(), gallery.image_of)
        pairs, texts = len(gallery.text_of), len(gallery.text)
        self._test_notes = [
            "Recall@K in per cent with 95 % bootstrap intervals over queries and over images; "
            f"{pairs} images against {pairs} texts."
        ]
        if texts < pairs:
            self._test_notes.append(f"Only {texts} texts differ; a tie counts against the query.")
        if self.rerank is not None:
            self._test_notes += first_pass_notes(scores, self.rerank)

    def _log_recall(self, split: str, scores: Scores) -> None:
        values = recall(scores.ranks())
        if self.rerank is not None:
            values |= {f"{direction}_survived": share for direction, share in scores.survived().items()}
            values |= {f"{name}_lost": points for name, points in recall_lost(scores).items()}
        for name, value in values.items():
            self.log(f"{split}/{name}", value, prog_bar=name == "mean_recall", rank_zero_only=False)

    def test_report(self) -> Mapping[str, Any]:
        """See `umd.protocols.HasReport`."""
        title, notes = report_heading(self.data, self.lineage())
        return {
            "title": title,
            "notes": [*notes, *self._test_notes],
            "columns": list(RECALL_REPORT_COLUMNS),
            "rows": self._test_rows,
        }

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> list[dict[str, Any]]:
        """One row an image, with the split's texts that suit it best: all rows at the last batch, none before.

        Not before all texts of the split have been read is any image's best one known.
        """
        self.collect(batch)
        if batch_idx + 1 < self.trainer.num_predict_batches[0]:
            return []
        gallery = self._gallery.join()
        scores = self.score(gallery)
        ranks = scores.ranks()["image_to_text"]
        best = scores.to_text.topk(min(SHOWN, len(gallery.text)), dim=1).indices
        return [
            {
                "index": index,
                "sample_id": sample_id,
                "image": image,
                "ground_truth": text,
                "rank": int(ranks[place]),
            }
            | {f"text_{k + 1}": gallery.strings[number] for k, number in enumerate(best[place].tolist())}
            for place, index, (sample_id, image, text) in zip(
                gallery.own.tolist(), gallery.own_index, gallery.own_names, strict=True
            )
        ]

    @torch.no_grad()
    def score(self, gallery: Gallery) -> Scores:
        """Scores of all images and texts, each rank fusing its own images' pairs; wants all ranks."""
        pairs, texts = len(gallery.text_of), len(gallery.text)
        # Outside of a step, Lightning leaves mixed precision to us.
        with self.trainer.precision_plugin.forward_context():
            near_text, near_image = self._shortlists(gallery)
            wanted = near_text | near_image
            checked = self._checked(pairs)
            if checked is not None:
                wanted[checked], wanted[:, gallery.text_of[checked]] = True, True
            wanted = wanted[gallery.own]
            number = int(wanted.sum())
            if number >= MANY_PAIRS:
                logger.info("scoring %s pairs of %s images and %s texts", f"{number:,}", f"{pairs:,}", f"{texts:,}")
            scores = join_rows(self._fuse_and_score(gallery, wanted), gallery.own)
        return Scores(
            scores=scores, near_text=near_text, near_image=near_image, text_of=gallery.text_of, checked=checked
        )

    def _checked(self, pairs: int) -> Tensor | None:
        """Which pairs' image and text a test scores against everything; the same on every rank, in every test."""
        if self.rerank_check is None or not self.trainer.testing:
            return None
        drawn = torch.randperm(pairs, generator=torch.Generator().manual_seed(0))[: self.rerank_check]
        return drawn.sort().values.to(self.device)

    def _shortlists(self, gallery: Gallery) -> tuple[Tensor, Tensor]:
        """(M, U) bool twice: which texts are scored for an image, and which images for a text."""
        if self.rerank is None:
            size = (len(gallery.text_of), len(gallery.text))
            everything = torch.ones(size, dtype=torch.bool, device=self.device)
            return everything, everything
        image = unit(self.image_contrast(gallery.image_summary))
        text = unit(self.text_contrast(gallery.text[:, 0]))
        return shortlists(image @ text.T, self.rerank)

    def _fuse_and_score(self, gallery: Gallery, wanted: Tensor) -> Tensor:
        """Scores of this rank's images, (N, U), at the pairs in `wanted`; minus infinity elsewhere."""
        kind = torch.promote_types(self.scorer.linear.weight.dtype, torch.float32)
        scores = torch.full(wanted.shape, -torch.inf, dtype=kind, device=self.device)
        fusion, lengths = PairFusion(self.encoder), gallery.text_mask.sum(1)
        # By length, so that little is padded; the longest first, so that memory that does not suffice says so at once.
        for texts in torch.split(lengths.argsort(descending=True, stable=True), TEXTS_AT_ONCE):
            longest = int(lengths[texts[0]])
            alone = fusion.text(gallery.text[texts, :longest], gallery.text_mask[texts, :longest])
            for image, columns in enumerate(wanted[:, texts]):
                places = columns.nonzero()[:, 0]
                if not len(places):
                    continue
                one = fusion.image(gallery.image[image : image + 1].to(self.device))
                for few in places.split(self._pairs_at_once(one, longest)):
                    several = alone.of(few, int(lengths[texts[few[0]]]))
                    pooled = fusion.pooled(several, one.expand(len(few)))
                    scores[image, texts[few]] = self.scorer(pooled)
        return scores

    def _pairs_at_once(self, image: Alone, longest: int) -> int:
        """On a CPU as many as its cache holds, at most `pairs_per_pass`."""
        if self.device.type != "cpu":
            return self.pairs_per_pass
        feed_forward = 4 * self.encoder.width * (image.tokens.shape[1] + longest)
        return max(1, min(self.pairs_per_pass, CACHED_NUMBERS // feed_forward))
