"""What callbacks may ask of a module, a module of its data, and a reader of a test: structural types, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NotRequired, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:  # only names of types here: a table of numbers needs no torch
    from torch import Tensor
    from torch.nn import Parameter

    from umd.batch import ImageTextBatch

UNKNOWN: Final = "unknown"
"""The protocol of a training that nothing tells of, as with checkpoints from before that was written down."""

RESULTS_SCHEMA: Final = 1
"""The version of `Results`; it grows where a field changes its meaning or goes, not where one is added."""


FEW: Final = 10
"""An interval of fewer questions (samples), or over fewer images, is marked: what so few say of others is a guess."""

FEW_MARK: Final = "*"

FEW_NOTE: Final = f"{FEW_MARK} of fewer than {FEW} questions, or images: not to be leaned on."

Split = Literal["train", "validation", "test"]


class Training(TypedDict):
    """One training: what a checkpoint says of its own and of those behind it, in plain types.

    Attributes:
        stage: the module's class, by its public name: "umd.VQAClassifier".
        data: name of the data set: "VQA-RAD"; None where the data does not say it.
        protocol: how the data was split: "clean", "paper", ...; None for data without protocols, such as captions;
            `UNKNOWN` where nothing tells.
        facts: what else the data said of itself: the rows of its splits, what was left out.
        seed: `--seed_everything`; None where it was not noted.
        settings: SHA-256 of all settings but seeds, folders, and checkpoints: the same for trainings that differ in
            their seed alone. None where they were not noted.
        path: the checkpoint that the next stage started from, as it was given; None in the training's own.
        sha256: of that file.
    """

    stage: str | None
    data: str | None
    protocol: str | None
    facts: dict[str, str]
    seed: int | None
    settings: str | None
    path: str | None
    sha256: str | None


class TestedCheckpoint(TypedDict):
    """The file that the tested weights are from.

    Attributes:
        path: relative to the folder of the results where it lies in the same run folder, else as it was given.
        sha256: of the file.
        step: optimizer steps that were behind it.
        epoch: the epoch, counted from 0, that the training was in.
    """

    path: str
    sha256: str
    step: int
    epoch: int


class TestedData(TypedDict):
    """What was tested on.

    Attributes:
        data_class: the data module's class.
        data: name of the data set.
        protocol: under which its test questions were read; None for data without protocols.
        facts: what else the data said of itself.
        without_truth: test samples whose answer or class the data does not give: they are answered, and not counted.
            Where that is all of them, there are no rows. Absent where it is none.
    """

    data_class: str
    data: str | None
    protocol: str | None
    facts: dict[str, str]
    without_truth: NotRequired[int]


class Limits(TypedDict):
    """A test of a part of the test split.

    Attributes:
        batches: how many were tested, on each rank.
        of: how many there are; None where that is not known.
    """

    batches: int
    of: int | None


class Breakdown(TypedDict, total=False):
    """What a report may hold beside its table.

    Attributes:
        breakdown: rows of the table's columns for further groups, which no table shows; only where there are any.
    """

    breakdown: list[dict[str, Any]]


class Report(Breakdown):
    """The table of a test.

    Attributes:
        title: what was tested, trained on what.
        notes: what a reader must know, a line each.
        columns: names of the columns; the first names a row, the second counts what it is measured on, the third is
            its value. `x_low` and `x_high` are the ends of the interval `x`: `interval` over questions (samples,
            queries), `image_interval` over images, of which there are so many `images`.
        rows: one dictionary a row, a value for each column; None for what is undefined. No rows where the data does not
            say what is true.
    """

    title: str
    notes: list[str]
    columns: list[str]
    rows: list[dict[str, Any]]


class CalibrationReport(Report):
    """How far confidences can be believed, in per cent.

    Attributes:
        temperature: what logits are divided by before they become confidences; 1: nothing was fitted, as with answer
            decoders and older checkpoints. Elsewhere there is a second row for each group, without it.
        bins: of all answers, those bins of confidences that hold any: their edges `low` and `high`, how many `answers`,
            their mean `confidence` and their `accuracy`.
        curve: of all answers, the share that is wrong (`risk`) among the surest, at each `coverage`.
    """

    temperature: float
    bins: list[dict[str, float]]
    curve: list[dict[str, float]]


class AddedResults(TypedDict, total=False):
    """What else a test may have measured, each a table of its own.

    Attributes:
        calibration: whether the confidences of the answers can be believed, and what is gained by withholding the least
            sure.
        controls: what the same questions are answered when they are asked otherwise (`umd test --controls`): never the
            result, for which stands `rows`.
    """

    calibration: CalibrationReport
    controls: Report


class Results(Report, AddedResults):
    """What `results.json` holds: the table, and what it takes to know what was measured.

    Files without `schema` are from before it: they hold a `Report`, and are compared all the same.

    Attributes:
        schema: `RESULTS_SCHEMA`.
        checkpoint: the file that was tested; None for weights that are in no file.
        training: how these weights were trained last; None where nothing tells.
        init_from: the trainings behind that one, nearest first.
        test: what was tested on; None where the data does not say it.
        limits: where only a part of the test split was tested, how large a one; else None.
        versions: of this package, torch, lightning and Python.
    """

    schema: int
    checkpoint: TestedCheckpoint | None
    training: Training | None
    init_from: list[Training]
    test: TestedData | None
    limits: Limits | None
    versions: dict[str, str]


class Predictions(TypedDict):
    """What `predictions.json` holds: of which answers the `predictions.csv` of a prediction is.

    Attributes:
        schema: `RESULTS_SCHEMA`.
        checkpoint: the file that answered; None for weights that are in no file.
        split: what was asked.
        root: the data's folder; None where the data does not say it.
        test: the data, as in `Results`.
        limits: where only a part of the split was asked, how large a one; else None.
        versions: as in `Results`.
    """

    schema: int
    checkpoint: TestedCheckpoint | None
    split: Split
    root: str | None
    test: TestedData | None
    limits: Limits | None
    versions: dict[str, str]


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
class HasTemperature(Protocol):
    """A module whose confidences are taken at a temperature."""

    temperature: float


@runtime_checkable
class HasReport(Protocol):
    """A module that keeps the table of its last test epoch."""

    def test_report(self) -> Mapping[str, Any]:
        """A `Report`."""
        ...


@runtime_checkable
class AddsToResults(Protocol):
    """A callback that has measured something beside a test's own table."""

    def added_results(self) -> AddedResults:
        """Its tables, on rank 0; empty where nothing was measured."""
        ...


@runtime_checkable
class HasLineage(Protocol):
    """A module that knows how its weights came about."""

    def lineage(self) -> Sequence[Training]:
        """The trainings that its weights went through, the last one first; empty where nothing tells."""
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
class HasTruths(Protocol):
    """A data module that may hold samples of which it does not say what is true."""

    def without_truth(self, split: Split) -> int:
        """The number of such samples in a split."""
        ...


@runtime_checkable
class HasValidation(Protocol):
    """A data module that can say what its validation split is."""

    @property
    def validates_on_test(self) -> bool:
        """Whether it is the test split itself."""
        ...


@runtime_checkable
class HasTestGroups(Protocol):
    """A data module that can tell its test questions apart."""

    def test_groups(self) -> Mapping[str, Sequence[bool]]:
        """Groups of the test split, as members by place in it."""
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
