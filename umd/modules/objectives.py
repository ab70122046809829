"""The objectives that a preset puts together, and the settings of masking and rebuilding."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from torch import Tensor

from umd.files import UserError

Preset = Literal["umd", "m3ae", "mae", "clip", "flip"]
Objective = Literal["mim", "mlm", "feature_mim", "feature_mlm", "itm", "contrastive"]
FeatureTarget = Literal["visible", "masked"]

PRESETS: dict[Preset, frozenset[Objective]] = {
    "umd": frozenset({"mim", "mlm", "feature_mim", "feature_mlm", "itm"}),
    "m3ae": frozenset({"mim", "mlm", "itm"}),
    "mae": frozenset({"mim"}),
    "clip": frozenset({"contrastive"}),
    "flip": frozenset({"contrastive"}),
}
_USUAL_IMAGE_MASK_RATIO = {"flip": 0.5, "clip": 0.0}


@dataclass(frozen=True, slots=True)
class Terms:
    """The unweighted terms of one step, scalars; None where the preset has no such term.

    Attributes:
        mim: L_MIM, Eq. 1.
        mlm: L_MLM, Eq. 2.
        feature_mim: L_FeaMIM, Eq. 4.
        feature_mlm: L_FeaMLM, Eq. 4.
        itm: L_ITM, Eq. 6.
        contrastive: symmetric image-text contrastive loss (presets clip and flip).
    """

    mim: Tensor | None = None
    mlm: Tensor | None = None
    feature_mim: Tensor | None = None
    feature_mlm: Tensor | None = None
    itm: Tensor | None = None
    contrastive: Tensor | None = None

    def total(self, alpha: float) -> Tensor:
        """Eq. 7: (1 - alpha) (MIM + MLM) + alpha (FeaMIM + FeaMLM) + ITM.

        Without feature terms there is nothing to trade off: MIM + MLM + ITM, or whatever the preset has.
        """
        features = [term for term in (self.feature_mim, self.feature_mlm) if term is not None]
        data = [term for term in (self.mim, self.mlm) if term is not None]
        rest = [term for term in (self.itm, self.contrastive) if term is not None]
        if features:
            data = [(1 - alpha) * term for term in data]
        weighted = [*data, *(alpha * term for term in features), *rest]
        if not weighted:
            raise UserError("a step without any objective has no loss")
        total = weighted[0]
        for term in weighted[1:]:
            total = total + term
        return total

    def named(self) -> dict[str, Tensor]:
        """The terms that are there, by name, detached."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value.detach() for name, value in values if value is not None}


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What is hidden, and what is rebuilt from the rest. Defaults: UMD's.

    Attributes:
        preset: which objectives: "umd" rebuilds data and the teacher's features and matches pairs; "m3ae" rebuilds
            data and matches pairs; "mae" rebuilds images alone; "clip" contrasts images and texts; "flip" does so
            with half of the patches dropped.
        alpha: weight of the feature terms against the data terms (Eq. 7).
        image_mask_ratio: share of patches that are hidden; null takes the preset's usual share (0.75; flip 0.5).
        text_mask_ratio: share of tokens that are hidden.
        whole_word: hide whole words instead of tokens.
        normalize_patches: rebuild patches standardised by their own mean and deviation (M3AE's norm_pix).
        feature_target: image features are rebuilt at the patches that both see ("visible"), or at the hidden ones
            from the image decoder's trunk ("masked").
        teacher_decay: lambda of the teacher's moving average (Eq. 5), per optimizer step.
        decoder_width: width of the image decoder.
        decoder_layers: its blocks.
        decoder_heads: its attention heads.
        contrastive_width: size of the vectors that presets clip and flip compare.
        mask_seed: seed of masks and swaps.
    """

    preset: Preset = "umd"
    alpha: float = 0.5
    image_mask_ratio: float | None = None
    text_mask_ratio: float = 0.15
    whole_word: bool = False
    normalize_patches: bool = True
    feature_target: FeatureTarget = "visible"
    teacher_decay: float = 0.995
    decoder_width: int = 384
    decoder_layers: int = 4
    decoder_heads: int = 6
    contrastive_width: int = 512
    mask_seed: int = 0

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        for name, allowed in (("preset", get_args(Preset)), ("feature_target", get_args(FeatureTarget))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}")
        for name in ("alpha", "teacher_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if not 0 < self.text_mask_ratio <= 1:
            raise UserError(f"text_mask_ratio is {self.text_mask_ratio}; it must be above 0 and at most 1")
        ratio = self.image_mask_ratio
        if ratio is None:
            return
        if self.preset == "clip" and ratio:
            raise UserError("image_mask_ratio: preset clip sees whole images; with patches dropped it is preset flip")
        if self.preset != "clip" and not 0 < ratio < 1:
            raise UserError(f"image_mask_ratio is {ratio}; it must lie between 0 and 1")

    @property
    def objectives(self) -> frozenset[Objective]:
        """The preset's objectives."""
        return PRESETS[self.preset]

    @property
    def hidden_share(self) -> float:
        """Share of patches that are hidden: `image_mask_ratio`, or the preset's usual one."""
        if self.image_mask_ratio is not None:
            return self.image_mask_ratio
        return _USUAL_IMAGE_MASK_RATIO.get(self.preset, 0.75)
