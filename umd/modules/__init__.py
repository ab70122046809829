"""The stages, one a file."""

from umd.modules.calibrate import TDCalib
from umd.modules.pretrain import MRPretrain
from umd.modules.vqa import VQAClassifier

__all__ = ["MRPretrain", "TDCalib", "VQAClassifier"]
