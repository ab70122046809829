"""What callbacks may ask of a module, and a module of its data: structural types, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Parameter

from umd.batch import ImageTextBatch


@runtime_checkable
class HasModalities(Protocol):
    """A module whose modalities' training can be coordinated (UMD section 3.3.2)."""

    def modality_parameters(self) -> Mapping[str, Iterable[Parameter]]:
        """The parameters of each modality, by its name; no parameter in two of them."""
        ...

    def modality_contributions(self) -> Mapping[str, Tensor]:
        """Each modality's detached contribution (Eq. 10), summed on this rank since the last optimizer step."""
        ...


@runtime_checkable
class HasTerms(Protocol):
    """A module whose loss is a sum of terms, or one whose single term has a name."""

    def loss_terms(self) -> Mapping[str, Tensor]:
        """The unweighted terms of the last training step by name: detached scalars."""
        ...


@runtime_checkable
class HasReconstructions(Protocol):
    """A module that can show what it rebuilds from a masked batch."""

    def reconstruct(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor, Tensor] | None:
        """The input, the masked input and the reconstruction, each (B, 3, H, W) float in 0..1; None: no images."""
        ...


@runtime_checkable
class HasPooledFeatures(Protocol):
    """A module that can show the vectors that its head decides on."""

    def pooled_features(self, batch: ImageTextBatch) -> Mapping[str, Tensor]:
        """One vector a sample for each modality, (B, D), by the modality's name: "image", "text"."""
        ...


@runtime_checkable
class HasReport(Protocol):
    """A module that keeps the table of its last test epoch."""

    def test_report(self) -> Mapping[str, Any]:
        """The report in plain types: `title`, `notes` (list of str), `columns` (list of str), `rows` (list of dict)."""
        ...


@runtime_checkable
class HasVocabulary(Protocol):
    """A data module that can say how its tokens and answers are numbered."""

    @property
    def tokenizer_size(self) -> int:
        """One more than the largest token id."""
        ...


@runtime_checkable
class HasAnswers(Protocol):
    """A data module for question answering."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer vocabulary: normalised answers, most frequent first."""
        ...


@runtime_checkable
class HasAnswerTokens(Protocol):
    """A data module that can write answers as tokens, and read them from tokens."""

    def answer_tokens(self, answers: Sequence[str]) -> list[list[int]]:
        """Each answer's token ids, start and end token included, cut as the batches' answers are."""
        ...

    def answer_text(self, token_ids: Sequence[int]) -> str:
        """The answer that these ids spell, special tokens left out, normalised as the batches' answers are."""
        ...


@runtime_checkable
class HasDescription(Protocol):
    """A data module that can say what it holds, for the titles and notes of tables."""

    @property
    def description(self) -> Mapping[str, str]:
        """Plain facts; "data" names the data set and "protocol", where there is one, how it is split."""
        ...


@runtime_checkable
class HasClasses(Protocol):
    """A data module for classification."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        ...


@runtime_checkable
class CanStartInside(Protocol):
    """A loader of training batches that can leave out those that were read before an interruption."""

    def start_inside(self, epoch: int, batches: int) -> None:
        """Leave out so many batches of the next pass if it is in this epoch."""
        ...
