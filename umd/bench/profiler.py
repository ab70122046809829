"""Lightning's own actions, timed by the time that each spends in itself."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning.pytorch.profilers import Profiler

from umd.files import write_whole

FETCH = "[_TrainingEpochLoop].train_dataloader_next"
REFERENCE = "reference"
TEACHER = "teacher"
REST = "rest"


class CostProfiler(Profiler):
    """CPU and wall seconds of each training step by part, written to a JSON file at the end.

    A part's time is its own: what it calls is counted there alone, so that a step's parts add up to the step. CPU
    seconds are the process's, all threads together. A step begins where its batch is fetched.

    Args:
        path: the file: `{"steps": [{part: [CPU, wall]}], "facts": {...}}`; a relative one lies in the run's folder.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self.steps: list[dict[str, list[float]]] = []
        self.facts: dict[str, Any] = {}
        self._open: list[str] = []
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._then = (time.process_time(), time.perf_counter())

    def start(self, action_name: str) -> None:
        """The part that runs now has spent what passed until here; the new one runs from here on."""
        self._charge()
        if action_name == FETCH:
            self._begin_step()
        self._open.append(action_name)

    def stop(self, action_name: str) -> None:
        """The part ends; the one that called it runs on."""
        self._charge()
        if action_name in self._open:
            while self._open.pop() != action_name:
                pass  # what an exception has left open

    def _charge(self) -> None:
        now = (time.process_time(), time.perf_counter())
        spent = self._spent[self._open[-1] if self._open else REST]
        for clock in range(2):
            spent[clock] += now[clock] - self._then[clock]
        self._then = now

    def _begin_step(self) -> None:
        if self._spent:
            self.steps.append(dict(self._spent))
        self._spent.clear()

    def teardown(self, stage: str | None) -> None:
        """Write what was measured; the first entry is the time before the first step, the last one that after it."""
        self._charge()
        self._begin_step()
        if self._local_rank:
            return  # the first rank speaks for all
        write_whole(Path(self.dirpath or "") / self.path, json.dumps({"steps": self.steps, "facts": self.facts}))
        super().teardown(stage)
