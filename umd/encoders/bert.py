"""Text encoders of BERT's and RoBERTa's kind, whole or their first layers, on `transformers`."""

from __future__ import annotations

from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from umd.encoders.fusion import initial_std
from umd.encoders.interfaces import TextEncoder
from umd.encoders.pretrained import load_transformers_weights
from umd.encoders.registry import TEXT
from umd.files import UserError


class BertText(TextEncoder):
    """A BERT or RoBERTa encoder without its pooler. Weight names follow `transformers`, under `model.`.

    Args:
        model: the network; its configuration says width, vocabulary and longest text.
    """

    def __init__(self, model: BertModel | RobertaModel) -> None:
        config = model.config
        # RoBERTa numbers positions from the padding id + 1 on.
        reserved = (config.pad_token_id or 0) + 1 if isinstance(model, RobertaModel) else 0
        super().__init__(
            width=config.hidden_size,
            vocab_size=config.vocab_size,
            max_length=config.max_position_embeddings - reserved,
        )
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `TextEncoder.forward`."""
        self.check(input_ids)
        features: Tensor = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        return features


def _bert(hub_name: str, weights: str | None, *, vocab_size: int, layers: int, dropout: float) -> BertText:
    config = BertConfig(
        vocab_size=vocab_size,
        num_hidden_layers=layers,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    encoder = BertText(BertModel(config, add_pooling_layer=False))
    if weights is not None:
        load_transformers_weights(encoder.model, hub_name if weights == "default" else weights)
    return encoder


@TEXT.register("bert_base", tokenizer="google-bert/bert-base-uncased")
def bert_base(weights: str | None = None, layers: int = 12, dropout: float = 0.1) -> BertText:
    """BERT-base, uncased (Devlin et al., 2019); `layers` keeps the first ones only (GGP keeps 6)."""
    return _bert("google-bert/bert-base-uncased", weights, vocab_size=30522, layers=layers, dropout=dropout)


@TEXT.register("scibert", tokenizer="allenai/scibert_scivocab_uncased")
def scibert(weights: str | None = None, layers: int = 12, dropout: float = 0.1) -> BertText:
    """SciBERT, uncased, with its own vocabulary (Beltagy et al., 2019); `layers` keeps the first ones only."""
    return _bert("allenai/scibert_scivocab_uncased", weights, vocab_size=31090, layers=layers, dropout=dropout)


@TEXT.register("pubmedbert", tokenizer="microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract")
def pubmedbert(weights: str | None = None, layers: int = 12, dropout: float = 0.1) -> BertText:
    """PubMedBERT, trained on abstracts (Gu et al., 2021; now named BiomedBERT); `layers` keeps the first ones only."""
    hub_name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    return _bert(hub_name, weights, vocab_size=30522, layers=layers, dropout=dropout)


@TEXT.register("roberta_base", tokenizer="FacebookAI/roberta-base")
def roberta_base(weights: str | None = None, layers: int = 12, dropout: float = 0.1) -> BertText:
    """RoBERTa-base (Liu et al., 2019); `layers` keeps the first ones only."""
    config = RobertaConfig(
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_hidden_layers=layers,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    encoder = BertText(RobertaModel(config, add_pooling_layer=False))
    if weights is not None:
        load_transformers_weights(encoder.model, "FacebookAI/roberta-base" if weights == "default" else weights)
    return encoder


@TEXT.register("tiny_bert", tokenizer="embedded")
def tiny_bert(
    weights: str | None = None,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    vocab_size: int = 4096,
    dropout: float = 0.0,
) -> BertText:
    """A small BERT for demonstrations and tests, with the embedded tokenizer; it has no published weights."""
    if weights is not None:
        raise UserError(f"tiny_bert has no published weights: set text_weights to null, not '{weights}'")
    config = BertConfig(
        initializer_range=initial_std(width),
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=256,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertText(BertModel(config, add_pooling_layer=False))


@TEXT.register("tiny_roberta", tokenizer="FacebookAI/roberta-base")
def tiny_roberta(
    weights: str | None = None,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    vocab_size: int = 50265,
    max_position_embeddings: int = 514,
    dropout: float = 0.0,
) -> BertText:
    """A RoBERTa of any size, padding id 1, for converted checkpoints and tests; it has no published weights."""
    if weights is not None:
        raise UserError(f"tiny_roberta has no published weights: set text_weights to null, not '{weights}'")
    config = RobertaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max_position_embeddings,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertText(RobertaModel(config, add_pooling_layer=False))
