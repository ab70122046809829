"""The stages of both papers as steps; rows that share a stage share the step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from umd.reproduce.costs import COSTS_FILE
from umd.reproduce.scales import TITLES, Setting, Task
from umd.reproduce.steps import Step

Protocol = Literal["clean", "paper"]
Perturbation = Literal["none", "adaptive", "fixed"]

STAGE_OF: dict[Task, str] = {"vqa": "vqa", "retrieval": "retrieval", "classification": "classification"}

CONTRASTED = ("clip", "flip")
"""Presets whose pairs are each other's negatives."""

_NO_PERTURBATION = "WeightPerturbation=off"
_NO_COORDINATION = "ModalityCoordination=off"

_COSTED = (
    *("--trainer.max_steps", "32", "--trainer.limit_val_batches", "0", "--test_after_fit", "false"),
    *("--trainer.log_every_n_steps", "10"),  # what is computed for the log alone is then not in the median step
    *("--trainer.profiler", "umd.bench.profiler.CostProfiler", "--trainer.profiler.path", COSTS_FILE),
    "--trainer.callbacks+=umd.bench.reference.Reference",
    *("--trainer.callbacks.width", "64", "--trainer.callbacks.layers", "4", "--trainer.callbacks.heads", "4"),
    *("--trainer.callbacks.tokens", "64", "--trainer.callbacks.samples", "32"),
)


@dataclass(frozen=True)
class Benchmark:
    """What a fine-tuning is measured on: a cell of a table, but for its row.

    Attributes:
        task: what is asked.
        dataset: of what.
        protocol: "clean" or "paper" where the task has protocols, else None.
        seed: of weights, order, and augmentation.
    """

    task: Task
    dataset: str
    protocol: Protocol | None
    seed: int

    @property
    def key(self) -> tuple[str, str | None]:
        """The data set and protocol, whatever the seed."""
        return self.dataset, self.protocol

    @property
    def title(self) -> str:
        """The data set and protocol, for a reader."""
        return TITLES[self.dataset] + (f", protocol {self.protocol}" if self.protocol else "")

    @property
    def label(self) -> str:
        """The same and the seed, for a folder."""
        return "-".join([self.dataset, *([self.protocol] if self.protocol else []), f"seed{self.seed}"])


class Graph:
    """Builds steps under one setting; equal arguments give equal steps.

    Args:
        setting: the scale and the data.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def pretrain(self, preset: str, benchmark: Benchmark, alpha: float = 0.5) -> Step:
        """MR-Pretrain or a baseline's pre-training: one for all data sets and seeds where it is on captions."""
        stage = "pretrain"
        if self.setting.pretrain_on == "captions" or self.setting.scale == "embedded":
            configs, options = self.setting.caption_inputs(stage)
            on, data = "captions", None
        else:
            configs, options = self.setting.task_inputs(stage, benchmark.dataset, benchmark.task)
            # Labels are unused, so both protocols share this one: it sees no reworded test question.
            benchmark = replace(benchmark, protocol="clean" if benchmark.protocol else None)
            options += _protocol(benchmark)
            on, data = f"{benchmark.dataset}-pairs", self.data(benchmark)
        options += ("--model.reconstruction.preset", preset, *_alpha(preset, alpha), *_seed(0))
        if preset in CONTRASTED:
            options += self.setting.contrast_inputs()
        label = _label(preset, _alpha_label(alpha), on)
        return Step("fit", stage, label, configs, _off(options, _NO_PERTURBATION), data=data)

    def calibrate(self, benchmark: Benchmark, start: Step | None, alpha: float = 0.5) -> Step:
        """TD-Calib on the benchmark's training pairs, from a pre-training or from the encoders' own weights."""
        configs, options = self.setting.task_inputs("calibrate", benchmark.dataset, benchmark.task)
        options += (*_protocol(benchmark), *(_alpha("umd", alpha)), *_seed(benchmark.seed))
        if benchmark.task == "retrieval":
            options += ("--data.negatives", "0")  # this stage contrasts nothing
        label = _label(benchmark.label, "from", _started(start), _alpha_label(alpha))
        return Step("fit", "calibrate", label, configs, _off(options, _NO_PERTURBATION), start, self.data(benchmark))

    def finetune(
        self,
        benchmark: Benchmark,
        start: Step | None,
        *,
        coordination: bool,
        perturbation: bool = False,
        ablation: str | None = None,
        rival: str | None = None,
        changed: tuple[str, ...] = (),
        more: tuple[str, ...] = (),
    ) -> Step:
        """Fine-tuning and test, from a pre-training, a calibration, or the encoders' own weights.

        Args:
            benchmark: the data.
            start: the earlier stage.
            coordination: with GM-Coord.
            perturbation: with GGP's perturbation.
            ablation: a config of configs/ablation/ on top, without its folder and ending.
            rival: what the label calls a method that `more` adds or `changed` sets.
            changed: arguments of the configs' own callbacks, as `--callback` takes them.
            more: further options.
        """
        stage = STAGE_OF[benchmark.task]
        configs, options = self.setting.task_inputs(stage, benchmark.dataset, benchmark.task)
        options += (*_protocol(benchmark), *_seed(benchmark.seed), *more)
        if ablation:
            configs += (f"ablation/{ablation}.yaml",)
        # The baselines of one modality bring callbacks of their own, without both.
        if not (ablation and ablation.startswith(("image_only_", "text_only_"))):
            changes = [] if coordination else [_NO_COORDINATION]
            if not perturbation:
                changes.insert(0, _NO_PERTURBATION)
            elif self.setting.perturbed:
                changes.append(f"WeightPerturbation.modules=[{self.setting.perturbed}]")
            changes += changed
            options = _off(options, *changes) if changes else options
        methods = ("coordinated" if coordination else None, "perturbed" if perturbation else None, rival)
        label = _label(benchmark.label, ablation, "from", _started(start), *methods)
        return Step("fit", stage, label, configs, options, start, self.data(benchmark))

    def cost(self, training: Step) -> Step:
        """A few steps of the same training, timed beside a reference that is the same for all trainings."""
        return replace(training, label=f"{training.label}-cost", options=(*training.options, *_COSTED))

    def blank(self, trained: Step) -> Step:
        """A trained model's test with every image turned grey."""
        return Step("test", trained.stage, f"{trained.label}-blank", (), ("--model.inputs", "text"), trained)

    def data(self, benchmark: Benchmark, stage: str | None = None) -> Step:
        """What the data set holds, question by question, as a stage (by default the task's own) reads it.

        It fails where nothing can be tested, whoever runs it.
        """
        stage = stage or STAGE_OF[benchmark.task]
        configs, options = self.setting.data_inputs(stage, benchmark.dataset, benchmark.task)
        label = _label(benchmark.dataset, benchmark.protocol)
        return Step("data", "data", label, configs, (*options, *_protocol(benchmark), "--needs_test"))

    def features(self, trained: Step) -> Step:
        """The pooled features of a trained model's test split."""
        options = ("--trainer.callbacks+=callbacks.FeatureWriter",)
        return Step("predict", trained.stage, f"{trained.label}-features", (), options, trained)

    def contrastive(self, perturbation: Perturbation) -> Step:
        """GGP's pre-training, with or without its perturbation."""
        configs, options = self.setting.caption_inputs("contrastive_pretrain")
        label = _label("ggp", "perturbed", perturbation)
        return Step("fit", "contrastive_pretrain", label, configs, _perturbed((*options, *_seed(0)), perturbation))

    def generate(self, benchmark: Benchmark, start: Step, perturbation: Perturbation) -> Step:
        """GGP's fine-tuning with its answer decoder."""
        stage = "vqa_generation"
        configs, options = self.setting.task_inputs(stage, benchmark.dataset, "vqa")
        options = _perturbed((*options, *_protocol(benchmark), *_seed(benchmark.seed)), perturbation)
        label = _label(benchmark.label, "from", _started(start), "perturbed", perturbation)
        return Step("fit", stage, label, configs, options, start, self.data(benchmark, stage))


def _label(*parts: str | None) -> str:
    return "-".join(part for part in parts if part)


def _started(start: Step | None) -> str:
    """What a stage starts from, in a word or two."""
    if start is None:
        return "scratch"
    if start.stage == "calibrate":
        return "calibrated" + ("_scratch" if start.source is None else f"_{start.source.label.split('-')[0]}")
    return start.label if start.stage == "contrastive_pretrain" else start.label.split("-")[0]


def _alpha(preset: str, alpha: float) -> tuple[str, ...]:
    return () if preset != "umd" or alpha == 0.5 else ("--model.reconstruction.alpha", str(alpha))


def _alpha_label(alpha: float) -> str | None:
    return None if alpha == 0.5 else f"alpha{alpha}"


def _seed(seed: int) -> tuple[str, ...]:
    return ("--seed_everything", str(seed), "--data.seed", str(seed))


def _protocol(benchmark: Benchmark) -> tuple[str, ...]:
    return ("--data.protocol", benchmark.protocol) if benchmark.protocol else ()


def _off(options: tuple[str, ...], *callbacks: str) -> tuple[str, ...]:
    return (*options, "--callback", *callbacks)


def _perturbed(options: tuple[str, ...], perturbation: Perturbation) -> tuple[str, ...]:
    if perturbation == "adaptive":
        return options
    return _off(options, _NO_PERTURBATION if perturbation == "none" else "WeightPerturbation.adaptive=false")
