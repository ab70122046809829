"""An LSTM over word pieces, trained from scratch: the text-only baseline without pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from umd.encoders.interfaces import TextEncoder
from umd.encoders.registry import TEXT
from umd.files import UserError


class LSTMText(TextEncoder):
    """Embedding and LSTM. The first token's feature is the summary: each direction's state at its end of the text.

    Args:
        width: size W of a token's feature, both directions together.
        embedding: size of a token's embedding.
        layers: stacked LSTM layers.
        bidirectional: read backwards too.
        vocab_size: number of token ids.
        dropout: between stacked layers, and of the embeddings.
        max_length: longest text, in tokens.
    """

    def __init__(
        self,
        *,
        width: int,
        embedding: int,
        layers: int,
        bidirectional: bool,
        vocab_size: int,
        dropout: float,
        max_length: int = 512,
    ) -> None:
        super().__init__(width=width, vocab_size=vocab_size, max_length=max_length)
        directions = 1 + bidirectional
        if width % directions:
            raise UserError(f"width is {width}; a bidirectional LSTM needs an even one")
        self.embedding = nn.Embedding(vocab_size, embedding)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(
            embedding,
            width // directions,
            num_layers=layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `TextEncoder.forward`; texts are padded on the right, at padding the features are 0."""
        self.check(input_ids)
        lengths = attention_mask.sum(1)
        embedded = self.dropout(self.embedding(input_ids))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        features, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=input_ids.shape[1])
        rows = torch.arange(len(features), device=features.device)
        forward_end = features[rows, lengths - 1, : self.lstm.hidden_size]
        backward_end = features[:, 0, self.lstm.hidden_size :]
        summary = torch.cat([forward_end, backward_end], dim=1)
        return torch.cat([summary[:, None], features[:, 1:]], dim=1)


@TEXT.register("lstm", tokenizer="embedded")
def lstm(
    weights: str | None = None,
    width: int = 512,
    embedding: int = 300,
    layers: int = 1,
    bidirectional: bool = True,
    vocab_size: int = 4096,
    dropout: float = 0.0,
    tokenizer: str = "embedded",
) -> LSTMText:
    """An LSTM without published weights; `tokenizer` names the one that the data module is to use with it."""
    if weights is not None:
        raise UserError(f"lstm has no published weights: set text_weights to null, not '{weights}'")
    return LSTMText(
        width=width,
        embedding=embedding,
        layers=layers,
        bidirectional=bidirectional,
        vocab_size=vocab_size,
        dropout=dropout,
    )
