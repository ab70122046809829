"""Lightning data modules: files on disk to batches. A file for each task, and one for each data set.

What is named here is imported when it is asked for: the files that read images and texts do without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.base import ImageTextDataModule
    from datamodules.captions import CaptionDataModule
    from datamodules.classification import ClassificationDataModule
    from datamodules.hub import HubVQA
    from datamodules.medpix import MedPixCaptions, MedPixRetrieval
    from datamodules.melinda import MELINDA
    from datamodules.mixed_captions import MixedCaptions
    from datamodules.own import OwnCaptions, OwnClassification, OwnRetrieval, OwnVQA
    from datamodules.phantom import PhantomCaptions, PhantomClassification, PhantomRetrieval, PhantomVQA
    from datamodules.radiology_captions import RadiologyCaptions
    from datamodules.retrieval import RetrievalDataModule
    from datamodules.roco import ROCORetrieval
    from datamodules.rocov2 import ROCOv2Captions, ROCOv2Retrieval
    from datamodules.slake import SLAKE
    from datamodules.slake_captions import SLAKECaptions
    from datamodules.vqa import VQADataModule
    from datamodules.vqa_med_2019 import VQAMed2019
    from datamodules.vqa_rad import VQARAD

__all__ = [
    "MELINDA",
    "SLAKE",
    "VQARAD",
    "CaptionDataModule",
    "ClassificationDataModule",
    "HubVQA",
    "ImageTextDataModule",
    "MedPixCaptions",
    "MedPixRetrieval",
    "MixedCaptions",
    "OwnCaptions",
    "OwnClassification",
    "OwnRetrieval",
    "OwnVQA",
    "PhantomCaptions",
    "PhantomClassification",
    "PhantomRetrieval",
    "PhantomVQA",
    "ROCORetrieval",
    "ROCOv2Captions",
    "ROCOv2Retrieval",
    "RadiologyCaptions",
    "RetrievalDataModule",
    "SLAKECaptions",
    "VQADataModule",
    "VQAMed2019",
]

_HOMES = {
    "ImageTextDataModule": "datamodules.base",
    "CaptionDataModule": "datamodules.captions",
    "ClassificationDataModule": "datamodules.classification",
    "HubVQA": "datamodules.hub",
    "MedPixCaptions": "datamodules.medpix",
    "MedPixRetrieval": "datamodules.medpix",
    "MELINDA": "datamodules.melinda",
    "MixedCaptions": "datamodules.mixed_captions",
    "OwnCaptions": "datamodules.own",
    "OwnClassification": "datamodules.own",
    "OwnRetrieval": "datamodules.own",
    "OwnVQA": "datamodules.own",
    "PhantomCaptions": "datamodules.phantom",
    "PhantomClassification": "datamodules.phantom",
    "PhantomRetrieval": "datamodules.phantom",
    "PhantomVQA": "datamodules.phantom",
    "RadiologyCaptions": "datamodules.radiology_captions",
    "RetrievalDataModule": "datamodules.retrieval",
    "ROCORetrieval": "datamodules.roco",
    "ROCOv2Captions": "datamodules.rocov2",
    "ROCOv2Retrieval": "datamodules.rocov2",
    "SLAKE": "datamodules.slake",
    "SLAKECaptions": "datamodules.slake_captions",
    "VQADataModule": "datamodules.vqa",
    "VQAMed2019": "datamodules.vqa_med_2019",
    "VQARAD": "datamodules.vqa_rad",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'datamodules' has no attribute '{name}'")
