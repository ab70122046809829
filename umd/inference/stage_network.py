"""A trained stage as a network: the only place of this folder that knows torch modules."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from umd.batch import ImageTextBatch
from umd.encoders import MultimodalEncoder
from umd.inference.attention import AttentionMaps, parts_of, shares_of_answer
from umd.inference.explanation import Attribution, Method
from umd.inference.gradients import patch_gradients, token_gradients
from umd.inference.network import Array, Inputs, Link, Task
from umd.modules import Classification, Retrieval, VQAClassifier, VQAGenerator
from umd.modules.base import Stage

REMEMBERED_IMAGES = 16
"""Images whose features a frozen vision encoder keeps: several questions about one image encode it once."""


class StageNetwork:
    """A stage in evaluation mode; see `umd.inference.network.Network` and `Embeds`.

    One call at a time computes; others, of other threads, wait.

    Args:
        stage: with its weights and, where it has one, its head.
        device: where it computes.
    """

    def __init__(self, stage: Stage[Any], device: torch.device) -> None:
        self.stage: Stage[Any] = stage.to(device).eval().requires_grad_(False)
        self.device = device
        self.lock = threading.Lock()
        self._forget_images()

    @property
    def task(self) -> Task:
        """What the stage was trained for."""
        if isinstance(self.stage, VQAClassifier | VQAGenerator):
            return "answering"
        if isinstance(self.stage, Classification):
            return "classification"
        return "retrieval" if isinstance(self.stage, Retrieval) else "pretraining"

    @property
    def link(self) -> Link:
        """How its scores become probabilities."""
        if isinstance(self.stage, VQAGenerator):
            return "exp"
        separate = isinstance(self.stage, VQAClassifier) and self.stage.answer_loss == "binary_cross_entropy"
        return "sigmoid" if separate else "softmax"

    @property
    def temperature(self) -> float:
        """What its scores are divided by before they become probabilities."""
        return self.stage.temperature if isinstance(self.stage, VQAClassifier | Classification) else 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """What it chooses from."""
        if isinstance(self.stage, VQAGenerator):
            return self.stage.answers
        return self.stage.names if isinstance(self.stage, VQAClassifier | Classification) else ()

    @property
    def sees(self) -> bool:
        """Whether the image has a part in the answer: it has none in a control that reads the question alone."""
        return self.stage.encoder.vision.width > 0 and getattr(self.stage, "inputs", "both") != "text"

    @property
    def reads(self) -> bool:
        """Whether the text has a part in the answer."""
        return self.stage.encoder.text.width > 0 and getattr(self.stage, "inputs", "both") != "image"

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """See `Network.scores`."""
        with self.lock, torch.inference_mode():
            return as_array(self.score(self.batch(inputs)))

    def score(self, batch: ImageTextBatch) -> Tensor:
        """(B, A) scores as a tensor; see `Network.scores`."""
        stage = self.stage
        if isinstance(stage, Retrieval):
            encoder = stage.encoder
            image = batch.per_pair(encoder.vision(encoder.vision.normalize(batch.image)))
            text = encoder.text(batch.input_ids, batch.attention_mask)
            pairs: Tensor = stage.scorer(stage.fuse(text, batch.attention_mask, image))
            return pairs[:, None]
        if isinstance(stage, VQAGenerator):
            numbers, likelihoods = stage.rank(stage(batch))
            scores = likelihoods.new_full((len(numbers), len(stage.answers)), -torch.inf)
            return scores.scatter(1, numbers, likelihoods)
        if isinstance(stage, VQAClassifier | Classification):
            logits: Tensor = stage(batch)
            return logits.float()
        raise TypeError(f"{type(stage).__name__} gives no scores")

    def score_of(self, batch: ImageTextBatch, number: int) -> Tensor:
        """(B,) scores of the name of this number, differentiable; in retrieval of the pairs."""
        stage = self.stage
        if isinstance(stage, VQAGenerator):
            states = stage(batch)
            many = (len(states.joint), -1)
            answer, real = (one[number].expand(many) for one in (stage.candidates, stage.candidates_mask))
            return stage.decoder.log_likelihood(answer, real, states.joint, states.mask)
        return self.score(batch)[:, number]

    def attribute(self, inputs: Inputs, number: int, method: Method, mask_token_id: int) -> Attribution:
        """See `Explains.attribute`."""
        vision, batch = self.stage.encoder.vision, self.batch(inputs)
        if not self.reads:  # nothing but the first token, as the stage itself does
            texts = ("input_ids", "attention_mask", "word_ids")
            batch = replace(batch, **{name: getattr(batch, name)[:, :1] for name in texts})
        with self.lock:
            explain = self._attended if method == "attention" else self._differentiated
            patches, tokens = explain(batch, number, mask_token_id)
        shown = as_array(patches).reshape(vision.grid, vision.grid) if self.sees else None
        return Attribution(shown, as_array(pad(tokens, (0, inputs.input_ids.shape[1] - len(tokens)))))

    @torch.no_grad()
    def _attended(self, batch: ImageTextBatch, number: int, mask_token_id: int) -> tuple[Tensor, Tensor]:
        self._forget_images()
        with AttentionMaps(parts_of(self.stage)) as maps:
            self.score_of(batch, number)
        length, real = batch.input_ids.shape[1], int(batch.attention_mask.sum())
        shares = shares_of_answer(self.stage, maps, length, real)
        words = shares.tokens * (batch.word_ids[0] >= 0).cpu()
        return shares.patches / shares.patches.sum(), words / words.sum() if self.reads else words

    def _differentiated(self, batch: ImageTextBatch, number: int, mask_token_id: int) -> tuple[Tensor, Tensor]:
        def of_pixels(pixels: Tensor) -> Tensor:
            return self.score_of(repeated(batch, len(pixels), image=pixels), number)

        def of_tokens(input_ids: Tensor) -> Tensor:
            return self.score_of(repeated(batch, len(input_ids), input_ids=input_ids), number)

        vision, text = self.stage.encoder.vision, self.stage.encoder.text
        hidden = batch.input_ids.masked_fill(batch.word_ids >= 0, mask_token_id)
        pixels = batch.image.float() / 255
        patches, tokens = pixels.new_zeros(vision.grid, vision.grid), pixels.new_zeros(batch.input_ids.shape[1])
        if self.sees:
            patches = patch_gradients(of_pixels, pixels, vision.mean.expand_as(pixels), vision.grid)
        if self.reads:
            tokens = token_gradients(of_tokens, text, batch.input_ids, hidden)
        return patches, tokens

    def _forget_images(self) -> None:
        """So that a frozen vision encoder computes again, and can be watched."""
        if isinstance(self.stage.encoder, MultimodalEncoder):
            self.stage.encoder.remember(REMEMBERED_IMAGES)

    def batch(self, inputs: Inputs) -> ImageTextBatch:
        """The same arrays as tensors on the device; what a network does not read is left empty."""
        nothing = ("",) * len(inputs)
        return ImageTextBatch(
            image=self._tensor(inputs.image),
            input_ids=self._tensor(inputs.input_ids),
            attention_mask=self._tensor(inputs.attention_mask),
            special_tokens_mask=self._tensor(inputs.word_ids < 0),
            word_ids=self._tensor(inputs.word_ids),
            mask_token_id=-1,
            index=torch.arange(len(inputs)),
            sample_ids=nothing,
            texts=nothing,
            image_names=nothing,
            image_index=None if inputs.image_index is None else self._tensor(inputs.image_index),
        )

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    # Vectors of one modality

    @property
    def comparable(self) -> bool:
        """See `Embeds.comparable`."""
        return hasattr(self.stage, "image_contrast")

    def embed_images(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The summary token of the vision encoder; projected and of unit length where `comparable`."""
        vision = self.stage.encoder.vision
        with self.lock, torch.inference_mode():
            tokens: Tensor = vision(vision.normalize(self._tensor(image)))
            return as_array(self._projected(tokens[:, 0], "image_contrast"))

    def embed_texts(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The first token of the text encoder; projected and of unit length where `comparable`."""
        with self.lock, torch.inference_mode():
            tokens: Tensor = self.stage.encoder.text(self._tensor(input_ids), self._tensor(attention_mask))
            return as_array(self._projected(tokens[:, 0], "text_contrast"))

    def _projected(self, summary: Tensor, head: str) -> Tensor:
        projection: nn.Module | None = getattr(self.stage, head, None)
        return summary if projection is None else normalize(projection(summary).float(), dim=1)


def repeated(batch: ImageTextBatch, times: int, **tensors: Tensor) -> ImageTextBatch:
    """A single pair so many times, with other tensors in the place of some of its own."""
    own = {name: getattr(batch, name) for name in ("image", "input_ids", "attention_mask", "word_ids")}
    return replace(batch, **{name: value.expand(times, *value.shape[1:]) for name, value in {**own, **tensors}.items()})


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor of any device as a float32 array."""
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
