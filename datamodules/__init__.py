"""Lightning data modules: files on disk to batches, one data set family a file."""

from datamodules.base import ImageTextDataModule
from datamodules.captions import RadiologyCaptions
from datamodules.slake import SLAKE
from datamodules.vqa import VQADataModule
from datamodules.vqa_rad import VQARAD

__all__ = ["SLAKE", "VQARAD", "ImageTextDataModule", "RadiologyCaptions", "VQADataModule"]
