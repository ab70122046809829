"""Answers without a trainer: load a checkpoint, ask it."""

from umd.inference.explanation import Explanation, Word
from umd.inference.model import Embeddings, ImageCheck, Model
from umd.inference.network import Embeds, Inputs, Network, Settings
from umd.inference.opening import load
from umd.inference.preparation import ImageSource
from umd.inference.reply import Answer, Reply

__all__ = [
    "Answer",
    "Embeddings",
    "Embeds",
    "Explanation",
    "ImageCheck",
    "ImageSource",
    "Inputs",
    "Model",
    "Network",
    "Reply",
    "Settings",
    "Word",
    "load",
]
