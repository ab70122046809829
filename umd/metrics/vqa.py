"""Accuracy for visual question answering, with what it takes to judge it: intervals, ceilings, twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from umd.metrics.intervals import bootstrap_interval, image_interval

# The keys of a row of `vqa_report`, in the order of the table.
VQA_REPORT_COLUMNS: Final = (
    "group",
    "questions",
    "accuracy",
    "interval_low",
    "interval_high",
    "image_interval_low",
    "image_interval_high",
    "images",
    "ceiling",
    "share_of_ceiling",
)


def vqa_report(
    index: Tensor, image: Tensor, correct: Tensor, closed: Tensor, has_twin: Tensor, answerable: Tensor
) -> list[dict[str, Any]]:
    """Accuracy on open, closed, all, and twin-free questions, each beside its 95 % intervals and ceiling.

    Args:
        index: (N,) int64, place of the question in its split; of a repeated place the first answer counts.
        image: (N,) int64, the number of the question's image: see `umd.metrics.images.image_numbers`.
        correct: (N,) bool, True where the model's answer is the true one.
        closed: (N,) bool, True for a closed question, False for an open one.
        has_twin: (N,) bool, True where the training split holds a reworded twin of the question.
        answerable: (N,) bool, True where the true answer is in the model's vocabulary.

    Returns:
        One row each for "open", "closed" and "overall" (the micro average), and "twin-free" where some
        question has a twin, with the keys `VQA_REPORT_COLUMNS`: `questions` is a count; `accuracy`,
        its bootstrap interval over questions (`interval_low`, `interval_high`) and over images
        (`image_interval_low`, `image_interval_high`; `images` is how many), and `ceiling` (the share of questions that
        are answerable) are in per cent, `share_of_ceiling` is accuracy in per cent of the ceiling, and above 100 where
        a model answers beyond its vocabulary. What is undefined (no question, a ceiling of 0) is None.
    """
    image, *flags = _each_once(index, image, correct, closed, has_twin, answerable)
    correct, closed, has_twin, answerable = (flag.bool() for flag in flags)
    return [_row(*group, image, correct, answerable) for group in _groups(closed, has_twin).items()]


def _row(group: str, members: Tensor, image: Tensor, correct: Tensor, answerable: Tensor) -> dict[str, Any]:
    """The row of a group, whose members are (N,) bool."""
    row: dict[str, Any] = dict.fromkeys(VQA_REPORT_COLUMNS)
    row |= {"group": group, "questions": int(members.sum())}
    if row["questions"]:
        hits = correct[members]
        row["accuracy"] = _per_cent(hits)
        row["interval_low"], row["interval_high"] = bootstrap_interval(hits)
        row["image_interval_low"], row["image_interval_high"] = image_interval(hits, image[members])
        row["images"] = len(set(image[members].tolist()))
        row["ceiling"] = _per_cent(answerable[members])
        if row["ceiling"]:
            row["share_of_ceiling"] = 100 * row["accuracy"] / row["ceiling"]
    return row


class VQAAccuracy(Metric):
    """Accuracy in per cent on open, closed, all, and twin-free questions; each question counts once.

    A distributed sampler repeats questions to even out its ranks, so the place of a question in its split is
    kept beside the answer, and the accuracy is taken after the ranks are joined.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    questions: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # One (B, 6) tensor a batch, not six vectors: the ranks are joined by one gather.
        self.add_state("questions", default=[], dist_reduce_fx="cat")
        self._joined = self._no_questions()

    def update(
        self, index: Tensor, image: Tensor, correct: Tensor, closed: Tensor, has_twin: Tensor, answerable: Tensor
    ) -> None:
        """Add a batch of answers; nothing is exchanged between ranks.

        Args:
            index: (B,) int64; all six as in `vqa_report`.
            image: (B,) int64.
            correct: (B,) bool.
            closed: (B,) bool.
            has_twin: (B,) bool.
            answerable: (B,) bool.

        Raises:
            ValueError: the arguments are not vectors of one length.
        """
        columns = (index, image, correct, closed, has_twin, answerable)
        if index.ndim != 1 or any(column.shape != index.shape for column in columns):
            shapes = [tuple(column.shape) for column in columns]
            raise ValueError(f"index, image, correct, closed, has_twin, answerable: each must be (B,), got {shapes}")
        self.questions.append(torch.stack([column.to(self.device).long() for column in columns], dim=1))

    def compute(self) -> dict[str, Tensor]:
        """Accuracy in per cent: `open`, `closed`, `overall`, `twin_free`; joins the ranks, so call it on all.

        Returns:
            Scalars for those groups that have questions; `twin_free` only where some question has a twin.
        """
        questions = dim_zero_cat(self.questions) if len(self.questions) else self._no_questions()
        self._joined = questions.cpu()
        _, *flags = _each_once(*self._joined.unbind(dim=1))
        correct, closed, has_twin, _ = (flag.bool() for flag in flags)
        return {
            group.replace("-", "_"): torch.tensor(_per_cent(correct[members]), device=self.device)
            for group, members in _groups(closed, has_twin).items()
            if members.any()
        }

    def report(self) -> list[dict[str, Any]]:
        """The rows of `vqa_report` for all ranks' questions; none where there are none.

        Returns at once after `compute`; before it, `compute` is called, which wants all ranks.
        """
        self.compute()
        return vqa_report(*self._joined.unbind(dim=1)) if len(self._joined) else []

    def breakdown(self, groups: Mapping[str, Sequence[bool]]) -> list[dict[str, Any]]:
        """The rows for other groups, of what `compute` has joined last; those without a question are left out.

        Args:
            groups: members by place in the split.
        """
        index, *columns = self._joined.unbind(dim=1)
        places, image, correct, _, _, answerable = _each_once(index, index, *columns)
        flags = {name: torch.tensor(members, dtype=torch.bool)[places] for name, members in groups.items()}
        rows = (_row(*group, image, correct.bool(), answerable.bool()) for group in flags.items())
        return [row for row in rows if row["questions"]]

    def sync(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Join the ranks' states; a rank without questions brings an empty tensor of the right shape."""
        # torchmetrics would send a float vector there, and the gather would hang or mix up the shapes.
        if isinstance(self.questions, list) and not self.questions:
            self.questions.append(self._no_questions())
        super().sync(*args, **kwargs)

    def _no_questions(self) -> Tensor:
        return torch.empty(0, 6, dtype=torch.long, device=self.device)


def _each_once(index: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """The columns, (M,) on the CPU, sorted by index: the first answer of each."""
    first = torch.from_numpy(np.unique(index.cpu().numpy(), return_index=True)[1])
    return tuple(column.cpu()[first] for column in columns)


def _groups(closed: Tensor, has_twin: Tensor) -> dict[str, Tensor]:
    """(N,) bool for each group of questions that is reported."""
    groups = {"open": ~closed, "closed": closed, "overall": torch.ones_like(closed)}
    if has_twin.any():
        groups["twin-free"] = ~has_twin
    return groups


def _per_cent(flags: Tensor) -> float:
    return 100 * int(flags.sum()) / len(flags)
