"""The encoder registry and the multi-modal encoder built from it."""

from umd.encoders import bert, clip, efficientnet_lite, lstm, minilm, timm_nets, torchvision_nets, vit
from umd.encoders.multimodal import EncoderConfig, Features, MultimodalEncoder, Pooled
from umd.encoders.registry import TEXT, VISION, build_text, build_vision, tokenizer_for

__all__ = [
    "TEXT",
    "VISION",
    "EncoderConfig",
    "Features",
    "MultimodalEncoder",
    "Pooled",
    "bert",
    "build_text",
    "build_vision",
    "clip",
    "efficientnet_lite",
    "lstm",
    "minilm",
    "timm_nets",
    "tokenizer_for",
    "torchvision_nets",
    "vit",
]
