"""What was wrong with a data set's files, counted and said once."""

from __future__ import annotations

from collections import Counter, defaultdict

from lightning.pytorch.utilities import rank_zero_warn

SHOWN = 3


class Problems:
    """Collects what could not be used, by kind, so that one warning can name the first few and the count.

    Args:
        title: The data set's name, at the head of the warning.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str) -> None:
        """Notes one case; `kind` says what is wrong and what was done, `example` which row, line or file."""
        self._counts[kind] += 1
        if len(self._examples[kind]) < SHOWN:
            self._examples[kind].append(example)

    @property
    def counts(self) -> dict[str, int]:
        """The number of cases of each kind."""
        return dict(self._counts)

    def __str__(self) -> str:
        parts = []
        for kind, examples in self._examples.items():
            count = self._counts[kind]
            more = f" and {count - SHOWN} more" if count > SHOWN else ""
            parts.append(f"{count} x {kind}: {', '.join(examples)}{more}")
        return f"{self.title}: {'; '.join(parts) or 'no problems'}"

    def warn(self) -> None:
        """One warning on rank 0 about everything collected since the last one; nothing where all was well."""
        if self._examples:
            rank_zero_warn(str(self))
            self._counts.clear()
            self._examples.clear()
