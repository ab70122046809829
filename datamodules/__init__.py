"""Lightning data modules: files on disk to batches. A file for each task, and one for each data set."""

from datamodules.base import ImageTextDataModule
from datamodules.captions import CaptionDataModule
from datamodules.classification import ClassificationDataModule
from datamodules.medpix import MedPixCaptions, MedPixRetrieval
from datamodules.melinda import MELINDA
from datamodules.phantom import PhantomCaptions, PhantomClassification, PhantomRetrieval, PhantomVQA
from datamodules.radiology_captions import RadiologyCaptions
from datamodules.retrieval import RetrievalDataModule
from datamodules.roco import ROCORetrieval
from datamodules.rocov2 import ROCOv2Captions, ROCOv2Retrieval
from datamodules.slake import SLAKE
from datamodules.vqa import VQADataModule
from datamodules.vqa_med_2019 import VQAMed2019
from datamodules.vqa_rad import VQARAD

__all__ = [
    "MELINDA",
    "SLAKE",
    "VQARAD",
    "CaptionDataModule",
    "ClassificationDataModule",
    "ImageTextDataModule",
    "MedPixCaptions",
    "MedPixRetrieval",
    "PhantomCaptions",
    "PhantomClassification",
    "PhantomRetrieval",
    "PhantomVQA",
    "ROCORetrieval",
    "ROCOv2Captions",
    "ROCOv2Retrieval",
    "RadiologyCaptions",
    "RetrievalDataModule",
    "VQADataModule",
    "VQAMed2019",
]
