"""Where the work is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from umd.reproduce.outcome import Outcome
from umd.reproduce.steps import Step

QUIET_SECONDS = 60.0
"""Between two lines about one running step, where there is no terminal."""

SHOWN = 12
"""Rows of the live table; the steps around the running one."""


def time_left(progress: Mapping[str, Any]) -> float | None:
    """Seconds until a training ends, as it says itself; None while that is unknown."""
    left: float | None = progress.get("seconds_left")
    return left


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def where(progress: Mapping[str, Any] | None) -> str:
    """A training's position in words: "epoch 3 of 10"."""
    if progress is None:
        return "starting"
    if progress["epochs"]:
        return f"epoch {progress['epoch']} of {progress['epochs']}"
    return f"step {progress['step']} of {progress['steps']}"


class Board:
    """Shows the steps of one call.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._outcomes: Mapping[Step, Outcome] = {}
        self._live: Live | None = None
        self._progress: Mapping[str, Any] | None = None
        self._began = 0.0
        self._spoke = 0.0

    @contextmanager
    def showing(self, outcomes: Mapping[Step, Outcome]) -> Iterator[None]:
        """Show these steps until the end of the block."""
        self._outcomes = outcomes
        if not self.console.is_terminal:
            yield
            return
        with Live(self._table(), console=self.console, refresh_per_second=2, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def note(self, step: Step, outcome: Outcome) -> None:
        """A step began or ended."""
        if outcome.state == "running":
            self._began = self._spoke = time.monotonic()
            self._progress = None
        number = list(self._outcomes).index(step) + 1
        if self._live is not None:
            self._live.update(self._table())
        if self._live is None or outcome.state in ("failed", "not run"):
            took = f" in {clock(outcome.seconds)}" if outcome.state in ("done", "failed") else ""
            self.console.print(f"[{number}/{len(self._outcomes)}] {step}: {outcome.state}{took}", markup=False)
            if outcome.reason:
                self.console.print(outcome.reason, markup=False, highlight=False)

    def look(self, step: Step, progress: Mapping[str, Any] | None) -> None:
        """A step is running."""
        self._progress = progress
        if self._live is not None:
            self._live.update(self._table())
        elif time.monotonic() - self._spoke >= QUIET_SECONDS:
            self._spoke = time.monotonic()
            left = time_left(progress) if progress else None
            rest = f", {clock(left)} left" if left is not None else ""
            self.console.print(f"    {step}: {where(progress)}{rest}", markup=False)

    def _table(self) -> Table:
        states = [outcome.state for outcome in self._outcomes.values()]
        at = states.index("running") if "running" in states else states.count("done")
        first = max(0, min(at - SHOWN // 2, len(states) - SHOWN))
        table = Table(title=f"{states.count('done')} of {len(states)} steps done", title_justify="left")
        for header in ("stage", "what", "state", "where", "time", "left"):
            table.add_column(header, no_wrap=header != "what")
        for step, outcome in list(self._outcomes.items())[first : first + SHOWN]:
            running = outcome.state == "running"
            left = time_left(self._progress) if running and self._progress else None
            seconds = time.monotonic() - self._began if running else outcome.seconds
            table.add_row(
                step.stage,
                step.label,
                outcome.state,
                where(self._progress) if running else "",
                clock(seconds) if seconds else "",
                clock(left) if left is not None else "",
            )
        return table
