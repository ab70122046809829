"""L_MLM: rebuild hidden tokens (UMD Eq. 2, BERT)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from umd.encoders.multimodal import MultimodalEncoder
from umd.heads.text_decoder import TextDecoder
from umd.losses.objective import Heads, Objective
from umd.losses.views import Views
from umd.masking import IGNORED


def masked_language_loss(decoder: Callable[[Tensor], Tensor], text: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the hidden tokens only; the decoder runs on these alone.

    Args:
        decoder: maps (N, D) features to (N, vocabulary) logits.
        text: Z_T, (B, L, D).
        labels: (B, L) int64, true ids at hidden positions, `IGNORED` elsewhere.

    Returns:
        A scalar; zero, with a gradient of zero for every parameter, where nothing is hidden.
    """
    hidden = labels != IGNORED
    logits = decoder(text[hidden])
    if not logits.shape[0]:
        return logits.sum()
    return functional.cross_entropy(logits.float(), labels[hidden])


class MaskedLanguage(Objective):
    """MLM on pairs: the text decoder reads the fused tokens."""

    term = "mlm"
    reads = frozenset({"masked_text"})

    def heads(self, encoder: MultimodalEncoder) -> Heads:
        """The text decoder."""
        return {"text_decoder": lambda: TextDecoder(encoder.width, encoder.text.vocab_size)}

    def __call__(self, views: Views) -> Tensor:
        """L_MLM."""
        decoder = views.head("text_decoder", TextDecoder)
        return masked_language_loss(decoder, views.masked_text, views.masked_tokens.labels)
