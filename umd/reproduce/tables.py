"""Which rows each table and figure of the papers has, and which steps each row takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from umd.reproduce.graph import Benchmark, Graph, Perturbation, Protocol
from umd.reproduce.scales import Task
from umd.reproduce.steps import Step

Kind = Literal["ours", "control"]
Build = Callable[[Graph, Benchmark], Step]

PRESETS = ("mae", "clip", "flip", "m3ae", "umd")


@dataclass(frozen=True)
class Row:
    """One row of a table: how its result comes about.

    Attributes:
        name: as on the command line.
        title: as in the table.
        build: the step whose test is the row's result on a benchmark.
        paper: the row's name among the paper's figures; None where no paper has it.
        kind: "ours", or "control" for a row that shows what the data or one modality alone gives.
    """

    name: str
    title: str
    build: Build
    paper: str | None = None
    kind: Kind = "ours"


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: as on the command line.
        title: what it shows.
        task: of all its rows.
        paper: key of the paper's figures in paper.json; None where there are none to compare with.
        rows: its rows in their order.
        default_rows: names of the rows that are run at the embedded scale unless others are asked for; None: all.
        datasets: of the paper, as folders of the data root and files of configs/data/; the first is a figure's default.
        figure: whether a figure, not a table, is wanted.
        against: the row that is compared with each other one.
        baseline: in its place, the row that each other one is compared with, corrected by Holm for their number.
        protocols: of question answering, unless others are asked for.
        costs: whether the rows' extra cost a training step is measured.
        notes: what a reader must know of the rows, a line each.
    """

    name: str
    title: str
    task: Task
    paper: str | None
    rows: tuple[Row, ...]
    default_rows: tuple[str, ...] | None = None
    datasets: tuple[str, ...] = ()
    figure: bool = False
    against: str = ""
    baseline: str = ""
    protocols: tuple[Protocol, ...] = ("clean", "paper")
    costs: bool = False
    notes: tuple[str, ...] = ()

    def chosen(self, names: Sequence[str]) -> Iterator[Row]:
        """The rows of these names, in the table's order."""
        return (row for row in self.rows if row.name in names)


def method(
    graph: Graph, benchmark: Benchmark, *, pretrain: bool, calibrate: bool, coordinate: bool, alpha: float = 0.5
) -> Step:
    """UMD with some of its three components (Tables 4 and 5); all of them is UMD."""
    start = graph.pretrain("umd", benchmark, alpha) if pretrain else None
    if calibrate:
        start = graph.calibrate(benchmark, start, alpha)
    return graph.finetune(benchmark, start, coordination=coordinate)


def umd(graph: Graph, benchmark: Benchmark, alpha: float = 0.5) -> Step:
    """The whole method."""
    return method(graph, benchmark, pretrain=True, calibrate=True, coordinate=True, alpha=alpha)


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
        start = graph.calibrate(benchmark, graph.pretrain("umd", benchmark))
        words = [*arguments]
        if callback == "WeightNoise" and graph.setting.perturbed:
            words += ["modules", f"[{graph.setting.perturbed}]"]
        keys = [f"--trainer.callbacks.{word}" for word in words[::2]]
        more = [word for pair in zip(keys, words[1::2], strict=True) for word in pair]
        more = [f"--trainer.callbacks+=callbacks.{callback}", *more] if callback else []
        if callback == "SharpnessAware":
            more += graph.setting.whole_steps(benchmark.dataset)
        return graph.finetune(
            benchmark,
            start,
            coordination=coordination,
            perturbation=perturbation,
            rival=name if callback else None,
            more=tuple(more),
        )

    return Row(name, title, build)


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
        source = None if start == "scratch" else graph.pretrain("umd", benchmark)
        if start == "calibrate":
            source = graph.calibrate(benchmark, source)
        return graph.finetune(
            benchmark,
            source,
            coordination=coordination,
            perturbation=perturbation,
            rival=name if changed or more else None,
            changed=changed,
            more=more,
        )

    return Row(name, title, build)


_BASELINES = tuple(Row(name, name.upper(), _preset(name), name.upper()) for name in PRESETS)
_CONTROLS = (
    Row("text_only", "UMD, trained without images", _text_only, kind="control"),
    Row("blank_image", "UMD, tested on blank images", _blank, kind="control"),
)
_LINES = tuple(
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
_PERTURBATIONS = (
    _perturbation("none", "no perturbation", "none", "none"),
    _perturbation("pt", "pre-training only", "adaptive", "none"),
    _perturbation("ft", "fine-tuning only", "none", "adaptive"),
    _perturbation("fixed", "both, fixed weight 0.05", "fixed", "fixed"),
    _perturbation("both", "both, adaptive magnitude", "adaptive", "adaptive"),
)
_RIVALS = (
    _rival("plain", "plain fine-tuning"),
    _rival("gm_coord", "GM-Coord (UMD)", coordination=True),
    _rival("ogm_ge", "OGM-GE", "GradientModulation"),
    _rival("agm", "AGM", "AdaptiveModulation"),
    _rival("ggp", "gradient-guided perturbation", perturbation=True),
    _rival("weight_noise", "weight noise", "WeightNoise"),
    _rival("sam", "SAM", "SharpnessAware"),
    _rival("asam", "ASAM", "SharpnessAware", "rho", "0.5", "adaptive", "true"),
)
_ABLATIONS = (
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
_SINGLE = (
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


def _alpha_row(alpha: float) -> Row:
    return Row(f"alpha{alpha}", f"alpha {alpha}", lambda graph, benchmark: umd(graph, benchmark, alpha))


def _features(name: str, title: str, build: Build) -> Row:
    return Row(name, title, lambda graph, benchmark: graph.features(build(graph, benchmark)))


def _without_calibration(graph: Graph, benchmark: Benchmark) -> Step:
    return method(graph, benchmark, pretrain=True, calibrate=False, coordinate=True)


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "table1",
            "Medical visual question answering (UMD, Table 1)",
            "vqa",
            "umd_table1",
            (*_BASELINES, *_CONTROLS),
            ("m3ae", "umd", "text_only", "blank_image"),
            ("vqa_rad", "slake", "vqa_med_2019"),
            against="umd",
        ),
        Experiment(
            "table2",
            "Image-text retrieval (UMD, Table 2)",
            "retrieval",
            "umd_table2",
            _BASELINES,
            ("m3ae", "umd"),
            ("roco",),
            against="umd",
        ),
        Experiment(
            "table3",
            "Classification of image-text pairs (UMD, Table 3)",
            "classification",
            "umd_table3",
            (*_SINGLE, *_BASELINES),
            None,
            ("melinda",),
            against="umd",
        ),
        Experiment(
            "table4",
            "Ablation on visual question answering (UMD, Table 4)",
            "vqa",
            "umd_table4",
            _LINES,
            None,
            ("vqa_rad", "slake", "vqa_med_2019"),
            against="line8",
        ),
        Experiment(
            "table5",
            "Ablation on classification (UMD, Table 5)",
            "classification",
            "umd_table5",
            _LINES,
            None,
            ("melinda",),
            against="line8",
        ),
        Experiment(
            "perturbation-table1",
            "Gradient-guided perturbation and other methods (GGP, Table 1)",
            "vqa",
            "perturbation_table1",
            (
                Row(
                    "ggp",
                    "gradient-guided perturbation",
                    _PERTURBATIONS[-1].build,
                    "gradient-guided perturbation",
                ),
            ),
            None,
            ("vqa_rad", "slake"),
            against="ggp",
        ),
        Experiment(
            "perturbation-table2",
            "Where and how weights are perturbed (GGP, Table 2)",
            "vqa",
            "perturbation_table2",
            _PERTURBATIONS,
            None,
            ("vqa_rad", "slake"),
            against="both",
        ),
        Experiment(
            "rivals",
            "Both papers' callbacks and their rivals in fine-tuning",
            "vqa",
            None,
            _RIVALS,
            None,
            ("vqa_rad", "slake"),
            baseline="plain",
            protocols=("clean",),
            costs=True,
            notes=(
                "All rows fine-tune from the same pre-training and calibration, UMD's. No method was tuned: each has "
                "its callback's own settings, ASAM a radius of 0.5.",
                "SAM and ASAM take two passes a step; all rows take the same number of steps.",
            ),
        ),
        Experiment(
            "ablations",
            "UMD's stages one by one, and the settings of both papers' callbacks in fine-tuning",
            "vqa",
            None,
            _ABLATIONS,
            None,
            ("vqa_rad", "slake"),
            baseline="alone",
            protocols=("clean",),
            notes=(
                "The papers' own ablations are table4 and perturbation-table2; here each row is fine-tuned as UMD is.",
            ),
        ),
        Experiment(
            "figure3",
            "Validation accuracy during fine-tuning, by where weights are perturbed (GGP, Figure 3)",
            "vqa",
            None,
            _PERTURBATIONS,
            None,
            ("vqa_rad",),
            figure=True,
        ),
        Experiment(
            "figure5",
            "Weight alpha of feature against data reconstruction (UMD, Figure 5)",
            "vqa",
            None,
            tuple(_alpha_row(alpha) for alpha in (0.2, 0.5, 0.8)),
            None,
            ("vqa_rad", "slake"),
            figure=True,
        ),
        Experiment(
            "figure6",
            "Test questions with the answers of two models (UMD, Figure 6)",
            "vqa",
            None,
            (_BASELINES[3], _BASELINES[4]),
            None,
            ("vqa_rad",),
            figure=True,
        ),
        Experiment(
            "figure7",
            "t-SNE of the pooled features, by class (UMD, Figure 7)",
            "classification",
            None,
            tuple(_features(name, name.upper(), _preset(name)) for name in ("flip", "m3ae", "umd")),
            None,
            ("melinda",),
            figure=True,
        ),
        Experiment(
            "figure8",
            "t-SNE of image and text features, without and with TD-Calib (UMD, Figure 8)",
            "classification",
            None,
            (
                _features("without", "without TD-Calib", _without_calibration),
                _features("with", "with TD-Calib", umd),
            ),
            None,
            ("melinda",),
            figure=True,
        ),
    )
}
