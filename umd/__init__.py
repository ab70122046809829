"""UMD: medical vision-language training in three stages, on PyTorch Lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umd.encoders import EncoderConfig, MultimodalEncoder
    from umd.encoders.ggp import GGPConfig, GGPEncoder
    from umd.inference import load
    from umd.modules import (
        Classification,
        ContrastivePretrain,
        MRPretrain,
        Retrieval,
        TDCalib,
        VQAClassifier,
        VQAGenerator,
    )
    from umd.optim import OptimizerConfig

NOTICE = "Research software, not a medical device."
"""What help, pictures and pages say of themselves."""

__all__ = [
    "NOTICE",
    "Classification",
    "ContrastivePretrain",
    "EncoderConfig",
    "GGPConfig",
    "GGPEncoder",
    "MRPretrain",
    "MultimodalEncoder",
    "OptimizerConfig",
    "Retrieval",
    "TDCalib",
    "VQAClassifier",
    "VQAGenerator",
    "load",
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
    "GGPConfig": "umd.encoders.ggp",
    "GGPEncoder": "umd.encoders.ggp",
    "ContrastivePretrain": "umd.modules",
    "VQAGenerator": "umd.modules",
    "load": "umd.inference",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'umd' has no attribute '{name}'")
