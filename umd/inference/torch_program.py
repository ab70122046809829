"""A network as a `torch.export` program."""

from __future__ import annotations

import threading
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.passes import move_to_device_pass

from umd.files import UserError
from umd.inference.network import Array
from umd.inference.program import Program


class TorchProgram(Program):
    """A `.pt2` file of `umd export --format torch`.

    Reading one may run code that is in it, as torch itself does it: it is a program, unlike checkpoints and weights.

    One call at a time computes; others, of other threads, wait.

    Args:
        path: the file.
        device: where it computes.
        pairs_at_once: see `Program`.

    Raises:
        UserError: the file is broken.
    """

    def __init__(self, path: Path, device: torch.device, pairs_at_once: int | None) -> None:
        super().__init__(pairs_at_once)
        try:
            program = torch.export.load(path)
        except (RuntimeError, BadZipFile) as error:
            raise UserError(f"'{path}' is no whole torch.export program: {str(error).splitlines()[0]}") from error
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        self.module = program.module()
        self.device = device
        self.lock = threading.Lock()

    def run(self, arrays: dict[str, Array]) -> NDArray[np.float32]:
        """See `Program.run`."""
        with self.lock, torch.inference_mode():
            tensors = [torch.from_numpy(array).to(self.device) for array in arrays.values()]
            scores: NDArray[np.float32] = self.module(*tensors).cpu().numpy()
        return scores
