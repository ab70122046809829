"""A trained stage as a network: the only place of this folder that knows torch modules."""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from umd.batch import ImageTextBatch
from umd.encoders import MultimodalEncoder
from umd.encoders.interfaces import PairEncoder
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

    def __init__(self, stage: Stage[PairEncoder], device: torch.device) -> None:
        self.stage = stage.to(device).eval().requires_grad_(False)
        self.device = device
        self.lock = threading.Lock()
        if isinstance(stage.encoder, MultimodalEncoder):
            stage.encoder.remember(REMEMBERED_IMAGES)

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
        return "sigmoid" if isinstance(self.stage, VQAClassifier) else "softmax"

    @property
    def names(self) -> tuple[str, ...]:
        """What it chooses from."""
        if isinstance(self.stage, VQAGenerator):
            return self.stage.answers
        return self.stage.names if isinstance(self.stage, VQAClassifier | Classification) else ()

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """See `Network.scores`."""
        with self.lock, torch.inference_mode():
            return as_array(self.score(self.batch(inputs)))

    def score(self, batch: ImageTextBatch) -> Tensor:
        """(B, A) scores as a tensor; see `Network.scores`."""
        stage = self.stage
        if isinstance(stage, Retrieval):
            encoder = stage.encoder
            image = encoder.vision(encoder.vision.normalize(batch.image)).expand(len(batch.input_ids), -1, -1)
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


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor of any device as a float32 array."""
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
