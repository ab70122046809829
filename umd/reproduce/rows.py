"""The rows of the papers' tables and figures, and which steps each takes."""

from __future__ import annotations

from typing import Literal

from umd.reproduce.experiment import Build, Row
from umd.reproduce.graph import Benchmark, Graph, Perturbation
from umd.reproduce.steps import Step


def method(
    graph: Graph,
    benchmark: Benchmark,
    *,
    pretrain: bool = True,
    calibrate: bool = True,
    coordinate: bool,
    alpha: float = 0.5,
    perturb: bool = False,
    rival: str | None = None,
    changed: tuple[str, ...] = (),
    more: tuple[str, ...] = (),
) -> Step:
    """UMD with some of its three components (Tables 4 and 5), all of them are UMD; what follows is `finetune`'s."""
    start = graph.pretrain("umd", benchmark, alpha) if pretrain else None
    if calibrate:
        start = graph.calibrate(benchmark, start, alpha)
    return graph.finetune(
        benchmark, start, coordination=coordinate, perturbation=perturb, rival=rival, changed=changed, more=more
    )


def umd(graph: Graph, benchmark: Benchmark, alpha: float = 0.5) -> Step:
    """The whole method."""
    return method(graph, benchmark, coordinate=True, alpha=alpha)


def _preset(name: str) -> Build:
    def build(graph: Graph, benchmark: Benchmark) -> Step:
        return (
            umd(graph, benchmark)
            if name == "umd"
            else graph.finetune(benchmark, graph.pretrain(name, benchmark), coordination=False)
        )

    return build


def _text_only(graph: Graph, benchmark: Benchmark) -> Step:
    whole = umd(graph, benchmark)
    return graph.finetune(benchmark, whole.source, coordination=True, ablation="text_only")


def _blank(graph: Graph, benchmark: Benchmark) -> Step:
    return graph.blank(umd(graph, benchmark))


def _line(number: int, pretrain: bool, calibrate: bool, coordinate: bool) -> Row:
    parts = [name for name, on in (("MR-Pretrain", pretrain), ("TD-Calib", calibrate), ("GM-Coord", coordinate)) if on]

    def build(graph: Graph, benchmark: Benchmark) -> Step:
        return method(graph, benchmark, pretrain=pretrain, calibrate=calibrate, coordinate=coordinate)

    # The text that survives of the paper has lost which pair of components stands in which of lines 5 to 7.
    paper = None if number in (5, 6, 7) else str(number)
    return Row(f"line{number}", " + ".join(parts) or "none", build, paper)


def _one_modality(name: str, title: str, ablation: str, stand_in: tuple[str, ...]) -> Row:
    def build(graph: Graph, benchmark: Benchmark) -> Step:
        more = stand_in if graph.setting.scale == "embedded" else ()
        return graph.finetune(benchmark, None, coordination=False, ablation=ablation, more=more)

    return Row(name, title, build, title)


def _perturbation(name: str, title: str, pretraining: Perturbation, finetuning: Perturbation) -> Row:
    def build(graph: Graph, benchmark: Benchmark) -> Step:
        return graph.generate(benchmark, graph.contrastive(pretraining), finetuning)

    return Row(name, title, build, title)


def _rival(
    name: str,
    title: str,
    callback: str | None = None,
    *arguments: str,
    coordination: bool = False,
    perturbation: bool = False,
) -> Row:
    """A fine-tuning with one method, from where UMD's starts: of the configs' own two callbacks, or one that is added.

    Args:
        name: as on the command line.
        title: as in the table.
        callback: class to add, of `callbacks`.
        arguments: its own, as words and values in turn.
        coordination: with GM-Coord.
        perturbation: with GGP's perturbation.
    """

    def build(graph: Graph, benchmark: Benchmark) -> Step:
        words = [*arguments]
        if callback == "WeightNoise" and graph.setting.perturbed:
            words += ["modules", f"[{graph.setting.perturbed}]"]
        keys = [f"--trainer.callbacks.{word}" for word in words[::2]]
        more = [word for pair in zip(keys, words[1::2], strict=True) for word in pair]
        more = [f"--trainer.callbacks+=callbacks.{callback}", *more] if callback else []
        if callback == "SharpnessAware":
            more += graph.setting.whole_steps(benchmark.dataset)
        rival = name if callback else None
        return method(graph, benchmark, coordinate=coordination, perturb=perturbation, rival=rival, more=tuple(more))

    return Row(name, title, build)


def _alpha_row(alpha: float) -> Row:
    return Row(f"alpha{alpha}", f"alpha {alpha}", lambda graph, benchmark: umd(graph, benchmark, alpha))


def _features(name: str, title: str, build: Build) -> Row:
    return Row(name, title, lambda graph, benchmark: graph.features(build(graph, benchmark)))


def _ablation(
    name: str,
    title: str,
    *changed: str,
    start: Literal["scratch", "pretrain", "calibrate"] = "calibrate",
    coordination: bool = False,
    perturbation: bool = False,
    more: tuple[str, ...] = (),
) -> Row:
    """UMD's stages one after the other, and one setting of a callback in fine-tuning.

    Args:
        name: as on the command line.
        title: as in the table.
        changed: arguments of the configs' own callbacks, as `--callback` takes them.
        start: the last stage before fine-tuning.
        coordination: with GM-Coord.
        perturbation: with GGP's perturbation.
        more: options of the model.
    """

    def build(graph: Graph, benchmark: Benchmark) -> Step:
        return method(
            graph,
            benchmark,
            pretrain=start != "scratch",
            calibrate=start == "calibrate",
            coordinate=coordination,
            perturb=perturbation,
            rival=name if changed or more else None,
            changed=changed,
            more=more,
        )

    return Row(name, title, build)


def _without_calibration(graph: Graph, benchmark: Benchmark) -> Step:
    return method(graph, benchmark, calibrate=False, coordinate=True)


BASELINES = tuple(
    Row(name, name.upper(), _preset(name), name.upper()) for name in ("mae", "clip", "flip", "m3ae", "umd")
)
CONTROLS = (
    Row("text_only", "UMD, trained without images", _text_only, kind="control"),
    Row("blank_image", "UMD, tested on blank images", _blank, kind="control"),
)
LINES = tuple(
    _line(number, *on)
    for number, on in enumerate(
        [
            (False, False, False),
            (True, False, False),
            (False, True, False),
            (False, False, True),
            (True, True, False),
            (True, False, True),
            (False, True, True),
            (True, True, True),
        ],
        start=1,
    )
)
PERTURBATIONS = (
    _perturbation("none", "no perturbation", "none", "none"),
    _perturbation("pt", "pre-training only", "adaptive", "none"),
    _perturbation("ft", "fine-tuning only", "none", "adaptive"),
    _perturbation("fixed", "both, fixed weight 0.05", "fixed", "fixed"),
    _perturbation("both", "both, adaptive magnitude", "adaptive", "adaptive"),
)
RIVALS = (
    _rival("plain", "plain fine-tuning"),
    _rival("gm_coord", "GM-Coord (UMD)", coordination=True),
    _rival("ogm_ge", "OGM-GE", "GradientModulation"),
    _rival("agm", "AGM", "AdaptiveModulation"),
    _rival("ggp", "gradient-guided perturbation", perturbation=True),
    _rival("weight_noise", "weight noise", "WeightNoise"),
    _rival("sam", "SAM", "SharpnessAware"),
    _rival("asam", "ASAM", "SharpnessAware", "rho", "0.5", "adaptive", "true"),
)
ABLATIONS = (
    _ablation("alone", "fine-tuning alone", start="scratch"),
    _ablation("pretrained", "+ MR-Pretrain", start="pretrain"),
    _ablation("calibrated", "+ MR-Pretrain + TD-Calib"),
    _ablation("coordinated", "+ MR-Pretrain + TD-Calib + GM-Coord (UMD)", coordination=True),
    _ablation(
        "last_layer",
        "UMD, contribution by the last layer",
        coordination=True,
        more=("--model.contribution", "last_layer"),
    ),
    _ablation("noise_none", "UMD, GM-Coord without noise", "ModalityCoordination.noise=none", coordination=True),
    _ablation("noise_both", "UMD, noise on both modalities", "ModalityCoordination.noise=both", coordination=True),
    _ablation("perturbed", "+ MR-Pretrain + TD-Calib + perturbation, adaptive, epsilon 0.001", perturbation=True),
    _ablation("epsilon0.01", "the same, epsilon 0.01", "WeightPerturbation.epsilon=0.01", perturbation=True),
    _ablation("epsilon0.05", "the same, epsilon 0.05", "WeightPerturbation.epsilon=0.05", perturbation=True),
    _ablation("fixed", "the same, fixed weight 0.05", "WeightPerturbation.adaptive=false", perturbation=True),
)
_TINY_BERT = ("--model.encoder.text", "tiny_bert", "--model.encoder.text_weights", "null")
ONE_MODALITY = (
    _one_modality(
        "resnet101",
        "ResNet-101",
        "image_only_resnet101",
        ("--model.encoder.vision", "tiny_vit", "--model.encoder.vision_weights", "null"),
    ),
    _one_modality("lstm", "LSTM", "text_only_lstm", ()),
    _one_modality(
        "roberta",
        "RoBERTa",
        "text_only_roberta",
        # The shipped tokenizer is BERT's kind; two layers are the next row's.
        (*_TINY_BERT, "--model.encoder.text_options", "{layers: 4}"),
    ),
    _one_modality(
        "scibert",
        "SciBERT",
        "text_only_scibert",
        _TINY_BERT,
    ),
)
ALPHAS = tuple(_alpha_row(alpha) for alpha in (0.2, 0.5, 0.8))
FEATURES = tuple(_features(name, name.upper(), _preset(name)) for name in ("flip", "m3ae", "umd"))
FEATURES_BY_CALIBRATION = (
    _features("without", "without TD-Calib", _without_calibration),
    _features("with", "with TD-Calib", umd),
)
