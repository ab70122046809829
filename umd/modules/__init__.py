"""The stages, one a file."""

from umd.modules.calibrate import TDCalib
from umd.modules.classification import Classification
from umd.modules.contrastive_pretrain import ContrastivePretrain
from umd.modules.pretrain import MRPretrain
from umd.modules.retrieval import Retrieval
from umd.modules.vqa import VQAClassifier
from umd.modules.vqa_generation import VQAGenerator

__all__ = [
    "Classification",
    "ContrastivePretrain",
    "MRPretrain",
    "Retrieval",
    "TDCalib",
    "VQAClassifier",
    "VQAGenerator",
]
