"""What became of a step: told by what runs it, shown by the board."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "running", "done", "failed", "not run"]


@dataclass
class Outcome:
    """What became of a step.

    Attributes:
        state: where it stands.
        reason: why it failed or was not run; "" otherwise.
        seconds: how long it ran in this call.
    """

    state: State = "waiting"
    reason: str = ""
    seconds: float = 0.0
