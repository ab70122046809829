"""The list of objectives, the presets that are names for lists of them, and the settings of masking and rebuilding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import Literal, get_args

from umd.files import UserError
from umd.losses.alignment import Alignment, MaskedAlignment
from umd.losses.feature_reconstruction import ImageFeatures, TextFeatures
from umd.losses.masked_image import MaskedImage, UnimodalMaskedImage
from umd.losses.masked_language import MaskedLanguage
from umd.losses.matching import Matching
from umd.losses.objective import Objective
from umd.losses.views import HIDES_PATCHES

Preset = Literal["umd", "m3ae", "mae", "clip", "flip"]
FeatureTarget = Literal["visible", "masked"]


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What is hidden, and what is rebuilt from the rest. Defaults: UMD's.

    Attributes:
        preset: which objectives: "umd" rebuilds data and the teacher's features and matches pairs; "m3ae" rebuilds
            data and matches pairs; "mae" rebuilds images alone; "clip" contrasts images and texts; "flip" does so
            with half of the patches dropped.
        alpha: weight of the feature terms against the data terms (Eq. 7) in preset "umd".
        objectives: in the place of a preset, the objectives themselves: each with its weight, or a list of them,
            which then count in full. Known are those of `OBJECTIVES`.
        image_mask_ratio: share of patches that are hidden; null takes 0.75, or 0.5 where only
            masked_contrastive hides them (preset flip).
        text_mask_ratio: share of tokens that are hidden.
        whole_word: hide whole words instead of tokens.
        normalize_patches: rebuild patches standardised by their own mean and deviation (M3AE's norm_pix).
        feature_target: image features are rebuilt at the patches that both see ("visible"), or at the hidden ones
            from the image decoder's trunk ("masked").
        teacher_decay: lambda of the teacher's moving average (Eq. 5), per optimizer step.
        decoder_width: width of the image decoder, a multiple of 4.
        decoder_layers: its blocks.
        decoder_heads: its attention heads.
        contrastive_width: size of the vectors that the contrastive objectives compare.
        contrastive_chunk: pairs that the contrastive objectives encode at a time; null: a whole micro-batch. A pair's
            negatives are the others of its micro-batch, over all ranks, never those of other micro-batches of the
            step. With a chunk the micro-batch can be as large as the step, in the memory of a small one: every pair is
            encoded twice, and the gradient is that of the large batch.
        mask_seed: seed of masks and swaps.
    """

    preset: Preset = "umd"
    alpha: float = 0.5
    objectives: dict[str, float] | list[str] | None = None
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
    contrastive_chunk: int | None = None
    mask_seed: int = 0

    def __post_init__(self) -> None:
        """Check what the type system cannot."""
        for name, allowed in (("preset", get_args(Preset)), ("feature_target", get_args(FeatureTarget))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}")
        for name in ("alpha", "teacher_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if self.contrastive_chunk is not None and self.contrastive_chunk < 1:
            raise UserError(f"contrastive_chunk is {self.contrastive_chunk}; it must be at least 1")
        if not 0 < self.text_mask_ratio <= 1:
            raise UserError(f"text_mask_ratio is {self.text_mask_ratio}; it must be above 0 and at most 1")
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise UserError(
                f"decoder_width is {self.decoder_width}; it must be a multiple of 4 and of decoder_heads "
                f"({self.decoder_heads})"
            )
        if self.objectives is not None:
            self._check_objectives(self.objectives)
        self._check_image_mask_ratio()

    def _check_objectives(self, given: Collection[str]) -> None:
        if not given:
            raise UserError("objectives is empty: a training needs at least one")
        if len(set(given)) < len(given):
            raise UserError(f"objectives holds one of them twice: {', '.join(given)}")
        for name in given:
            if name not in OBJECTIVES:
                near = get_close_matches(name, OBJECTIVES, n=1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                raise UserError(f"objectives: unknown '{name}'.{hint} Known: {', '.join(OBJECTIVES)}")
        for name, weight in self.loss_weights.items():
            if not 0 <= weight < inf:
                raise UserError(f"objectives: the weight of {name} is {weight}; it must be 0 or more")
        terms = [objective.term for objective in self.build(given).values()]
        if len(set(terms)) < len(terms):
            raise UserError(f"objectives: two of {', '.join(given)} are ways to the same term; choose one")
        if self.feature_target == "masked" and "feature_mim" in given and "mim" not in terms:
            raise UserError("feature_target 'masked' reads the image decoder, which only mim trains: add mim")

    def _check_image_mask_ratio(self) -> None:
        ratio = self.image_mask_ratio
        if ratio is None:
            return
        if not self._usual_ratios() and ratio:
            raise UserError(
                f"image_mask_ratio is {ratio}, but {', '.join(self.loss_weights)} sees whole images (with patches "
                "dropped, preset clip is preset flip)"
            )
        if self._usual_ratios() and not 0 < ratio < 1:
            raise UserError(f"image_mask_ratio is {ratio}; it must lie between 0 and 1")

    def _usual_ratios(self) -> list[float]:
        objectives = self.build(self.loss_weights).values()
        return [objective.image_mask_ratio for objective in objectives if objective.reads & HIDES_PATCHES]

    @property
    def loss_weights(self) -> dict[str, float]:
        """The objectives and the weight of each: those given, or the preset's."""
        if self.objectives is None:
            return PRESETS[self.preset](self.alpha)
        if isinstance(self.objectives, Mapping):
            return dict(self.objectives)
        return dict.fromkeys(self.objectives, 1.0)

    def build(self, names: Collection[str]) -> dict[str, Objective]:
        """The objectives of these names, in the order in which `OBJECTIVES` lists them."""
        return {name: build(self) for name, build in OBJECTIVES.items() if name in names}

    @property
    def hidden_share(self) -> float:
        """Share of patches that are hidden: `image_mask_ratio`, or the largest that one of the objectives takes."""
        if self.image_mask_ratio is not None:
            return self.image_mask_ratio
        return max(self._usual_ratios(), default=0.0)


OBJECTIVES: dict[str, Callable[[ReconstructionConfig], Objective]] = {
    "mim": lambda config: MaskedImage(
        config.normalize_patches, config.decoder_width, config.decoder_layers, config.decoder_heads
    ),
    "unimodal_mim": lambda config: UnimodalMaskedImage(
        config.normalize_patches, config.decoder_width, config.decoder_layers, config.decoder_heads
    ),
    "mlm": lambda _: MaskedLanguage(),
    "feature_mim": lambda config: ImageFeatures(config.decoder_width if config.feature_target == "masked" else None),
    "feature_mlm": lambda _: TextFeatures(),
    "itm": lambda _: Matching(),
    "contrastive": lambda config: Alignment(config.contrastive_width),
    "masked_contrastive": lambda config: MaskedAlignment(config.contrastive_width),
}
"""Every objective by its name in configs, made from the settings; the total adds the terms up in this order."""

PRESETS: dict[Preset, Callable[[float], dict[str, float]]] = {
    "umd": lambda alpha: {"mim": 1 - alpha, "mlm": 1 - alpha, "feature_mim": alpha, "feature_mlm": alpha, "itm": 1.0},
    "m3ae": lambda _: {"mim": 1.0, "mlm": 1.0, "itm": 1.0},
    "mae": lambda _: {"unimodal_mim": 1.0},
    "clip": lambda _: {"contrastive": 1.0},
    "flip": lambda _: {"masked_contrastive": 1.0},
}
"""The objectives and weights that each preset stands for, by alpha (Eq. 7)."""
