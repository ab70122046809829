"""What a stage is run with: at which scale, on which data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Scale = Literal["embedded", "small", "paper"]
Task = Literal["vqa", "retrieval", "classification"]
Source = Literal["captions", "task"]

PHANTOM = "phantom"
"""The data set of the embedded scale, for every task."""

TITLES = {
    "vqa_rad": "VQA-RAD",
    "slake": "SLAKE",
    "vqa_med_2019": "VQA-Med-2019",
    "roco": "ROCO",
    "melinda": "MELINDA",
    PHANTOM: "phantom",
}

CAPTIONS = {"roco": "ROCO", "medicat": "MedICaT", "rocov2": "ROCOv2", "medpix": "MedPix", "slake": "SLAKE"}
"""Data sets of captions, as folders of the data root; SLAKE's are made from its questions, for who asks for them."""

WITH_SLAKE = {
    frozenset({"slake"}): "data/slake_captions.yaml",
    frozenset({"medpix", "slake"}): "data/medpix_slake.yaml",
}
"""The configs of the captions that SLAKE's are among."""

PAPER_CAPTIONS = ("roco", "medicat")
"""Those that the papers pre-train on."""

TESTED = {
    "vqa_rad": "VQARAD",
    "slake": "SLAKE",
    "vqa_med_2019": "VQAMed2019",
    "roco": "ROCORetrieval",
    "melinda": "MELINDA",
}
"""The data sets of all tables, as folders of the data root, with their classes."""

_PHANTOMS: dict[Task, str] = {
    "vqa": "datamodules.PhantomVQA",
    "retrieval": "datamodules.PhantomRetrieval",
    "classification": "datamodules.PhantomClassification",
}
_PAIRS_A_STEP = {
    "pretrain": 256,
    "vqa_rad": 64,
    "slake": 32,
    "vqa_med_2019": 32,
    "melinda": 16,
    "roco": 128,
    "contrastive_pretrain": 32,
    "vqa_generation": 32,
}
"""What the papers train on in one optimizer step, over all devices and micro-batches."""

_PAPER_DEVICES = {"pretrain": 2}


@dataclass(frozen=True)
class Setting:
    """Everything about a reproduction but its rows.

    Attributes:
        scale: "embedded" (tiny encoders, phantom data), "small" (what two CPU cores do with real data) or "paper".
        data_root: folder that holds the data sets; unused at the embedded scale.
        devices: devices a training uses; None: as the configs say.
        pretrain_on: image-text pairs of MR-Pretrain: "captions" (below the data root) or "task" (the downstream
            training pairs, questions for captions, under the clean protocol).
        captions: which captions, as folders of the data root.
        left_out: data sets whose validation and test images no pre-training on captions sees, as folders of the data
            root.
    """

    scale: Scale = "embedded"
    data_root: Path | None = None
    devices: int | None = None
    pretrain_on: Source = "captions"
    captions: tuple[str, ...] = PAPER_CAPTIONS
    left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for titles: what this can be compared with, and what not."""
        if self.scale == "embedded":
            return "embedded scale: tiny encoders on phantom data; NOT comparable with any paper"
        if self.scale == "small":
            return (
                "small scale: frozen EfficientNet-Lite0, 224 pixels in 4 x 4 patches, MiniLM-L6, three fusion layers; "
                "real data, not the papers' model"
            )
        return "paper scale: the papers' encoders and hyper-parameters"

    def task_inputs(self, stage: str, dataset: str, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Configs and options of a stage on a task's data set."""
        base = f"{stage}.yaml"
        if self.scale == "embedded":
            inherent = {"vqa": "vqa", "vqa_generation": "vqa", "calibrate": "vqa"}.get(stage, stage)
            return (base,), (() if inherent == task else ("--data", _PHANTOMS[task]))
        recipe = stage if stage == "pretrain" else f"{stage}/{dataset}"
        configs, options = self._scaled(stage, f"data/{dataset}.yaml", recipe)
        batches = self._batches(stage, dataset, task)
        return configs, (*options, "--data.root", self._folder(dataset), *self._carving(stage, dataset), *batches)

    def data_inputs(self, stage: str, dataset: str, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Configs and options that say which data a stage reads, and nothing of a model."""
        if self.scale == "embedded":
            return self.task_inputs(stage, dataset, task)
        options = ("--data.root", self._folder(dataset), *self._carving(stage, dataset))
        return (f"{stage}.yaml", f"data/{dataset}.yaml"), options

    def caption_inputs(self, stage: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Configs and options of a pre-training stage on captions."""
        if self.scale == "embedded":
            return (f"{stage}.yaml",), ()
        with_slake = None if stage == "contrastive_pretrain" else WITH_SLAKE.get(frozenset(self.captions))
        configs, options = self._scaled(stage, with_slake or "data/roco_medicat.yaml", stage)
        if stage == "contrastive_pretrain":  # GGP's corpus is ROCO alone
            corpora = tuple(name for name in self.captions if name.startswith("roco")) or ("roco",)
            where = [word for name in corpora for word in (f"--data.{name}_root", self._folder(name))]
        elif self.captions == ("slake",):
            where = ["--data.root", self._folder("slake")]
        elif with_slake or set(self.captions) <= set(PAPER_CAPTIONS):
            where = ["--data.root", str(self.data_root)]
        else:
            where = [word for name in self.captions for word in (f"--data.{name}_root", self._folder(name))]
        if self.left_out:
            others = [f"{TESTED[name]}={self._folder(name)}" for name in self.left_out]
            where += ["--data.exclude_images_of", json.dumps(others)]
        return configs, (*options, *where, *self._batches(stage, stage, None))

    def contrast_inputs(self) -> tuple[str, ...]:
        """Options by which presets clip and flip contrast all pairs of a step, not those of a micro-batch alone.

        Embedded and small steps are one micro-batch anyway.
        """
        if self.scale != "paper":
            return ()
        more = ("--trainer.val_check_interval", "1000", "--model.reconstruction.contrastive_chunk", "16")
        return (*self.whole_steps("pretrain"), *more)

    def whole_steps(self, of: str) -> tuple[str, ...]:
        """Options by which a step is one micro-batch: of pre-training, or of a fine-tuning on a data set.

        Embedded and small steps are that anyway.
        """
        if self.scale != "paper":
            return ()
        size = _PAIRS_A_STEP[of] // (self.devices or _PAPER_DEVICES.get(of, 1))
        return ("--data.batch_size", str(size), "--trainer.accumulate_grad_batches", "1")

    @property
    def perturbed(self) -> str | None:
        """The module whose weights a fine-tuning may perturb; None: the callbacks' own, the vision encoder.

        The small scale freezes that one.
        """
        return "encoder.text" if self.scale == "small" else None

    def _scaled(self, stage: str, data: str, recipe: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.scale == "small":
            return (f"{stage}.yaml", data, "small/encoders.yaml", f"small/{stage}.yaml"), ()
        encoders = "ggp_encoders" if stage in ("contrastive_pretrain", "vqa_generation") else "encoders"
        return (f"{stage}.yaml", data, f"paper/{encoders}.yaml", f"paper/{recipe}.yaml"), ()

    def _carving(self, stage: str, dataset: str) -> tuple[str, ...]:
        """Options by which the small scale trains on all rows of VQA-RAD, and keeps the last weights.

        Its test asks about images of train, and the best epoch by a validation on others is too early a one.
        """
        return (
            ("--data.validation_fraction", "0") if (self.scale, stage, dataset) == ("small", "vqa", "vqa_rad") else ()
        )

    def _folder(self, dataset: str) -> str:
        assert self.data_root is not None
        return str(self.data_root / dataset)

    def _batches(self, stage: str, dataset: str, task: Task | None) -> tuple[str, ...]:
        """Options that keep the papers' number of pairs a step on this number of devices."""
        if self.scale != "paper" or self.devices in (None, _PAPER_DEVICES.get(stage, 1)):
            return ("--trainer.devices", str(self.devices)) if self.devices not in (None, 1) else ()
        assert self.devices is not None
        pairs = _PAIRS_A_STEP[stage] if stage in _PAIRS_A_STEP else _PAIRS_A_STEP[dataset]
        size, accumulate = split_batch(pairs, self.devices, 8 if stage == "retrieval" else 16)
        words = ("--trainer.devices", str(self.devices), "--data.batch_size", str(size))
        return (*words, "--trainer.accumulate_grad_batches", str(accumulate))


def split_batch(pairs: int, devices: int, most: int) -> tuple[int, int]:
    """Micro-batch and accumulation whose product over all devices comes near a number of pairs a step.

    Of all micro-batches up to `most`, the largest whose total is within 7 % of `pairs`; where none is, the one
    that comes nearest.
    """
    choices = [(size, max(1, round(pairs / (devices * size)))) for size in range(most, 0, -1)]
    off = [abs(devices * size * accumulate - pairs) / pairs for size, accumulate in choices]
    close = [choice for choice, error in zip(choices, off, strict=True) if error <= 0.07]
    return close[0] if close else choices[off.index(min(off))]
