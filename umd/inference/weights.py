"""Weights as safetensors: tensors and nothing else, one that has several names once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from umd.files import UserError


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict; which names share a tensor goes into the file's metadata."""
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    same: dict[str, str] = {}
    for name, value in weights.items():
        kept = first.setdefault((value.data_ptr(), tuple(value.shape), value.stride()), name) if value.numel() else name
        if kept != name:
            same[name] = kept
    kept_weights = {name: value.contiguous().clone() for name, value in weights.items() if name not in same}
    path.write_bytes(save(kept_weights, metadata=same))  # the library's own writing leaves the file to its owner alone


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict that `save_weights` has written.

    Raises:
        UserError: the file is broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}
            same: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"'{path}' holds no whole weights: {error}") from error
    missing = [name for name in same.values() if name not in weights]
    if missing:
        raise UserError(f"'{path}' holds no whole weights: it lacks {', '.join(missing[:5])}")
    return {**weights, **{name: weights[kept] for name, kept in same.items()}}
