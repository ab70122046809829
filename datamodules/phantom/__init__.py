"""The embedded data: radiology-like drawings with questions or captions, for runs without any download.

`studies` says what an image shows, `images` draws it, `text` asks and describes, `layouts` writes the published
layouts, `folder` makes them once. The data modules here read them with the code that reads the real data. Left and
right are sides of the image. Train and test share no image, unlike in VQA-RAD.
"""

from datamodules.phantom.captions import PhantomCaptions
from datamodules.phantom.classification import PhantomClassification
from datamodules.phantom.retrieval import PhantomRetrieval
from datamodules.phantom.vqa import PhantomVQA

__all__ = ["PhantomCaptions", "PhantomClassification", "PhantomRetrieval", "PhantomVQA"]
