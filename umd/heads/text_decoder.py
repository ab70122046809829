"""D_T: from fused text tokens back to the vocabulary (UMD section 3.1.1)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import Parameter, functional

from umd.encoders.bert import BertText
from umd.encoders.fusion import initialize


class TextDecoder(nn.Module):
    """Dense layer, GELU, LayerNorm, projection to the vocabulary.

    Args:
        width: size D of the fused tokens.
        vocab_size: number of token ids.
        layer_norm_eps: epsilon of the LayerNorm.
        tied: (vocab_size, D) word embeddings that are the projection's weights too (see `tied_decoder`).
    """

    def __init__(
        self, width: int, vocab_size: int, layer_norm_eps: float = 1e-12, tied: Parameter | None = None
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.predict = nn.Linear(width, vocab_size)
        initialize(self, width)
        if tied is not None:
            self.predict.weight = tied

    def forward(self, text: Tensor) -> Tensor:
        """Logits over the vocabulary: (..., D) -> (..., vocab_size)."""
        logits: Tensor = self.predict(self.norm(functional.gelu(self.dense(text))))
        return logits


def tied_decoder(text: BertText) -> TextDecoder:
    """A decoder for a BERT, whose word embeddings are the projection's weights, as in BERT itself."""
    words = cast(Parameter, text.model.embeddings.word_embeddings.weight)
    return TextDecoder(text.width, text.vocab_size, text.model.config.layer_norm_eps, tied=words)
