"""Lightning data modules: files on disk to batches, one data set family a file."""

from datamodules.base import ImageTextDataModule
from datamodules.captions import RadiologyCaptions
from datamodules.melinda import MELINDA
from datamodules.phantom import PhantomCaptions, PhantomVQA
from datamodules.phantom_tasks import PhantomClassification, PhantomRetrieval
from datamodules.roco_retrieval import ROCORetrieval
from datamodules.slake import SLAKE
from datamodules.vqa import VQADataModule
from datamodules.vqa_med_2019 import VQAMed2019
from datamodules.vqa_rad import VQARAD

__all__ = [
    "MELINDA",
    "SLAKE",
    "VQARAD",
    "ImageTextDataModule",
    "PhantomCaptions",
    "PhantomClassification",
    "PhantomRetrieval",
    "PhantomVQA",
    "ROCORetrieval",
    "RadiologyCaptions",
    "VQADataModule",
    "VQAMed2019",
]
