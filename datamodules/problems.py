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
        self._said: Counter[str] = Counter()

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
        return f"{self.title}: {self._told(self._counts) or 'no problems'}"

    def warn(self) -> None:
        """One warning on rank 0 about everything of a kind that was added to since the last one."""
        new = Counter({kind: count for kind, count in self._counts.items() if count > self._said[kind]})
        if new:
            self._said = self._counts.copy()
            rank_zero_warn(f"{self.title}: {self._told(new)}")

    def _told(self, counts: Counter[str]) -> str:
        parts = []
        for kind, count in counts.items():
            more = f" and {count - SHOWN} more" if count > SHOWN else ""
            parts.append(f"{count} x {kind}: {', '.join(self._examples[kind])}{more}")
        return "; ".join(parts)
