"""GGP's encoder: a vision transformer, and one BERT cut in two, whose upper half reads the image (GGP section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import Parameter
from transformers.models.bert.modeling_bert import BertLayer

from umd.encoders.bert import BertText
from umd.encoders.fusion import CoAttentionLayer, Pick, initialize
from umd.encoders.interfaces import PairEncoder
from umd.encoders.registry import build_text, build_vision
from umd.files import UserError


@dataclass(frozen=True, kw_only=True)
class GGPConfig:
    """What GGP's encoder is made of. Defaults: the paper's, with random weights.

    Attributes:
        image_size: pixels along the side of the square input (the paper gives none).
        vision: name of the vision encoder in the registry.
        vision_weights: null (random), "default" (hub or package) or a local folder.
        vision_options: further options of that encoder's builder.
        text: name of a text encoder of BERT's kind in the registry.
        text_weights: null (random), "default" (hub or package) or a local folder.
        text_options: further options of that encoder's builder, without "layers".
        text_layers: its first layers, which read the text alone.
        fusion_layers: the layers behind, which read the image too.
    """

    image_size: int = 256
    vision: str = "vit_b16_in21k"
    vision_weights: str | None = None
    vision_options: dict[str, Any] = field(default_factory=dict)
    text: str = "bert_base"
    text_weights: str | None = None
    text_options: dict[str, Any] = field(default_factory=dict)
    text_layers: int = 6
    fusion_layers: int = 6

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        for name in ("text_layers", "fusion_layers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if "layers" in self.text_options:
            raise UserError("text_options has 'layers'; set text_layers and fusion_layers instead")


def build_bert(name: str, weights: str | None, options: Mapping[str, Any], layers: int) -> BertText:
    """The first layers of a registered text encoder of BERT's kind.

    Raises:
        UserError: the text encoder is of another kind, or its feed-forward is not four times as wide as a token.
    """
    text = build_text(name, weights=weights, options={**options, "layers": layers})
    if not isinstance(text, BertText) or text.model.config.intermediate_size != 4 * text.width:
        raise UserError(f"text is '{name}'; GGP needs an encoder of BERT's kind, such as bert_base or roberta_base")
    return text


def cross_attention_layers(text: BertText, first: int = 0) -> nn.ModuleList:
    """BERT's layers from `first` on, each with a new cross-attention between self-attention and feed-forward.

    Self-attention and feed-forward have the weights of `text`, the cross-attention is drawn as BERT draws its own.
    """
    config = text.model.config
    layers = nn.ModuleList()
    for source in text.model.encoder.layer[first:]:
        layer = CoAttentionLayer(
            text.width, config.num_attention_heads, config.hidden_dropout_prob, config.layer_norm_eps
        )
        initialize(layer, text.width)
        _copy_layer(cast(BertLayer, source), layer)
        layers.append(layer)
    return layers


def _copy_layer(source: BertLayer, target: CoAttentionLayer) -> None:
    attention = target.self_attention
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (source.attention.self.query, attention.query),
        (source.attention.self.key, attention.key),
        (source.attention.self.value, attention.value),
        (source.attention.output.dense, attention.output),
        (source.attention.output.LayerNorm, attention.norm),
        (source.intermediate.dense, target.expand),
        (source.output.dense, target.contract),
        (source.output.LayerNorm, target.norm),
    ]
    for old, new in pairs:
        new.load_state_dict(old.state_dict())


class GGPEncoder(PairEncoder):
    """Vision encoder, text encoder (BERT's first layers), and the multi-modal encoder (BERT's last layers).

    The multi-modal encoder goes on with the text's states and reads the image's tokens by cross-attention.

    Args:
        config: what to build.
    """

    text: BertText

    def __init__(self, config: GGPConfig) -> None:
        vision = build_vision(
            config.vision,
            image_size=config.image_size,
            weights=config.vision_weights,
            options=config.vision_options,
        )
        layers = config.text_layers + config.fusion_layers
        text = build_bert(config.text, config.text_weights, config.text_options, layers)
        super().__init__(vision, text)
        self.config = config
        same = vision.width == text.width
        self.image_projection = nn.Identity() if same else nn.Linear(vision.width, text.width)
        initialize(self.image_projection, text.width)
        self.fusion = cross_attention_layers(text, config.text_layers)
        text.model.encoder.layer = text.model.encoder.layer[: config.text_layers]
        text.model.config.num_hidden_layers = config.text_layers

    @property
    def width(self) -> int:
        """Size D of a token's state."""
        return self.text.width

    def fuse(self, text: Tensor, text_mask: Tensor, image: Tensor, pick: Pick | None = None) -> Tensor:
        """Let the text read the image.

        Args:
            text: (B, L, D) from the text encoder.
            text_mask: (B, L) bool, True at real tokens.
            image: (B, 1 + P, W) from the vision encoder.
            pick: which states are wanted; None: all.

        Returns:
            The joint states, (B, L, D), or those that are picked.
        """
        image = self.image_projection(image)
        *layers, last = self.fusion
        for layer in layers:
            text = layer(text, text_mask, image, None)
        states: Tensor = last(text, text_mask, image, None, pick=pick)
        return states

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The joint states of B pairs, (B, L, D).

        Args:
            pixels: (B, 3, S, S) from `vision.normalize`.
            input_ids: (B, L) int64.
            attention_mask: (B, L) bool.
        """
        return self.fuse(self.text(input_ids, attention_mask), attention_mask, self.vision(pixels))

    def modality_parameters(self) -> Mapping[str, list[Parameter]]:
        """Vision = the vision encoder and its projection; language = the text encoder.

        The multi-modal encoder is one stack that both go through, so it belongs to neither.
        """
        return {
            "vision": [*self.vision.parameters(), *self.image_projection.parameters()],
            "language": list(self.text.parameters()),
        }
