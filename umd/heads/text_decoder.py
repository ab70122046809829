"""D_T: from fused text tokens back to the vocabulary (UMD section 3.1.1)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from umd.encoders.fusion import initialize


class TextDecoder(nn.Module):
    """Dense layer, GELU, LayerNorm, projection to the vocabulary.

    Args:
        width: size D of the fused tokens.
        vocab_size: number of token ids.
    """

    def __init__(self, width: int, vocab_size: int, layer_norm_eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.predict = nn.Linear(width, vocab_size)
        initialize(self)

    def forward(self, text: Tensor) -> Tensor:
        """Logits over the vocabulary: (..., D) -> (..., vocab_size)."""
        logits: Tensor = self.predict(self.norm(functional.gelu(self.dense(text))))
        return logits
