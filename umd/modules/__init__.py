"""The stages, one a file."""

from umd.modules.calibrate import TDCalib
from umd.modules.classification import Classification
from umd.modules.pretrain import MRPretrain
from umd.modules.retrieval import Retrieval
from umd.modules.vqa import VQAClassifier

__all__ = ["Classification", "MRPretrain", "Retrieval", "TDCalib", "VQAClassifier"]
