"""UMD: medical vision-language training in three stages, on PyTorch Lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umd.encoders import EncoderConfig, MultimodalEncoder
    from umd.modules import Classification, MRPretrain, Retrieval, TDCalib, VQAClassifier
    from umd.optim import OptimizerConfig

__all__ = [
    "Classification",
    "EncoderConfig",
    "MRPretrain",
    "MultimodalEncoder",
    "OptimizerConfig",
    "Retrieval",
    "TDCalib",
    "VQAClassifier",
]

_HOMES = {
    "EncoderConfig": "umd.encoders",
    "MultimodalEncoder": "umd.encoders",
    "OptimizerConfig": "umd.optim",
    "MRPretrain": "umd.modules",
    "TDCalib": "umd.modules",
    "Classification": "umd.modules",
    "Retrieval": "umd.modules",
    "VQAClassifier": "umd.modules",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'umd' has no attribute '{name}'")
