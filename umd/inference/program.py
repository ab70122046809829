"""A network as a program that another library runs: ONNX, by onnxruntime (extra `onnx`). Imports no torch."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd.files import UserError
from umd.inference.network import Array, Inputs


class Program(ABC):
    """See `umd.inference.network.Network`.

    Args:
        pairs_at_once: most pairs that it is given at once; None: any number.
    """

    def __init__(self, pairs_at_once: int | None) -> None:
        self.pairs_at_once = pairs_at_once

    @abstractmethod
    def run(self, arrays: dict[str, Array]) -> NDArray[np.float32]:
        """Scores of B pairs.

        Args:
            arrays: `image` (B, 3, S, S), `input_ids` (B, L) and `attention_mask` (B, L), in this order.
        """

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """See `Network.scores`."""
        pairs = len(inputs)
        image = inputs.image if inputs.image_index is None else inputs.image[inputs.image_index]
        arrays: dict[str, Array] = {
            "image": image,
            "input_ids": inputs.input_ids,
            "attention_mask": inputs.attention_mask,
        }
        size = self.pairs_at_once or pairs
        parts = [
            self.run({name: np.ascontiguousarray(array[start : start + size]) for name, array in arrays.items()})
            for start in range(0, pairs, size)
        ]
        return np.concatenate(parts)


class OnnxProgram(Program):
    """An ONNX model.

    Args:
        path: the file.
        device: "cpu", or "cuda" where onnxruntime can use it.
        pairs_at_once: see `Program`.

    Raises:
        UserError: onnxruntime is not installed, or does not know the device; or the file is broken.
    """

    def __init__(self, path: Path, device: str, pairs_at_once: int | None) -> None:
        super().__init__(pairs_at_once)
        try:
            import onnxruntime
            from onnxruntime.capi.onnxruntime_pybind11_state import (
                Fail,
                InvalidGraph,
                InvalidProtobuf,
                RuntimeException,
            )
        except ImportError as error:
            raise UserError(
                f"'{path}' is run by onnxruntime, which is not installed: pip install 'umd[onnx]'"
            ) from error
        kind, _, number = device.partition(":")
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
        if provider not in onnxruntime.get_available_providers():
            raise UserError(f"device '{device}' cannot be used by this onnxruntime; 'cpu' always can")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: one a core
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=[(provider, {"device_id": number} if number else {})]
            )
        except (Fail, InvalidGraph, InvalidProtobuf, RuntimeException) as error:
            raise UserError(f"'{path}' is no whole ONNX model: {str(error).splitlines()[0]}") from error
        self.read = [given.name for given in self.session.get_inputs()]

    def run(self, arrays: dict[str, Array]) -> NDArray[np.float32]:
        """See `Program.run`; a model of one modality does not read the other."""
        (scores,) = self.session.run(None, {name: arrays[name] for name in self.read})
        return np.asarray(scores, dtype=np.float32)
