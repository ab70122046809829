"""A plan is the papers' graph of stages: what is shared, what it is made from, and with which hyper-parameters."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.configs.test_recipes import GGP, UMD_CALIBRATE, UMD_DOWNSTREAM, UMD_PRETRAIN, Recipe
from umd.cli import main
from umd.commands.callback_options import with_options
from umd.commands.train import run
from umd.encoders import tokenizer_for
from umd.reproduce.code import Code
from umd.reproduce.graph import Benchmark, Graph
from umd.reproduce.plan import Plan, make_plan
from umd.reproduce.scales import Setting, split_batch
from umd.reproduce.steps import Step, Workspace
from umd.reproduce.tables import EXPERIMENTS

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
CODE = Code(ROOT)
PAPER = Setting("paper", Path("/data"), devices=3)
RECIPES = UMD_PRETRAIN | UMD_CALIBRATE | UMD_DOWNSTREAM | GGP


def plan(name: str, setting: Setting = PAPER, **more: object) -> Plan:
    experiment = EXPERIMENTS[name]
    datasets = ["phantom"] if setting.scale == "embedded" else experiment.datasets
    given: dict[str, Any] = {"rows": [row.name for row in experiment.rows], "datasets": datasets}
    given |= {"protocols": ["clean", "paper"], "seeds": [0, 1]} | more
    return make_plan(experiment, setting, **given)


def workspace(tmp_path: Path, configs: Path = CONFIGS, code: Code = CODE) -> Workspace:
    return Workspace(configs, tmp_path / "results", code)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(old)
    for key, value in new.items():
        inner = key in old and isinstance(old[key], Mapping) and isinstance(value, Mapping)
        both[key] = merged(old[key], value) if inner else value
    return both


def settings(step: Step) -> dict[str, Any]:
    """What a training is run with: its configs on top of each other, then its options, as the parser reads them."""
    found: dict[str, Any] = {}
    for name in step.configs:
        found = merged(found, yaml.safe_load((CONFIGS / name).read_text()))
    words = iter(step.options)
    for word in words:
        if not word.startswith("--") or word == "--callback" or "+=" in word:
            continue
        first, *path = word.removeprefix("--").split(".")
        content: Any = yaml.safe_load(next(words))
        if first in ("model", "data") and path:
            path = ["init_args", *path]
        for key in reversed([first, *path]):
            content = {key: content}
        found = merged(found, content)
    return found


def trainings(setting: Setting = PAPER) -> Iterator[Step]:
    seen = set()
    for name in EXPERIMENTS:
        for step in plan(name, setting).steps:
            if step.command == "fit" and step not in seen:
                seen.add(step)
                yield step


def recipe_of(step: Step) -> Recipe:
    """The papers' numbers for a training, found by its stage and data set."""
    dataset = next((name for name in ("vqa_rad", "slake", "vqa_med_2019", "melinda") if name in step.label), "roco")
    return RECIPES[step.stage if step.stage in ("pretrain", "contrastive_pretrain") else f"{step.stage}/{dataset}"]


def test_every_training_at_the_papers_scale_has_the_papers_hyper_parameters() -> None:
    checked = 0
    for step in trainings():
        recipe, found = recipe_of(step), settings(step)
        model, data, trainer = found["model"]["init_args"], found["data"]["init_args"], found["trainer"]
        optimizer, encoder = model["optimizer"], model["encoder"]
        # The baselines of one modality have a rate of their own where they start from nothing.
        if "lstm" not in step.label:
            assert optimizer["lr"] == recipe.lr, step
            assert optimizer["head_multiplier"] == recipe.heads, step
            assert optimizer["fusion_multiplier"] == recipe.fusion, step
        assert optimizer["weight_decay"] == recipe.weight_decay, step
        assert optimizer["schedule"] == recipe.schedule, step
        assert optimizer["warmup_ratio"] == recipe.warmup, step
        assert encoder["image_size"] == recipe.image_size, step
        assert data["text_length"] == recipe.text_length, step
        assert data.get("random_resized_crop", True) == recipe.crop, step
        number, unit = recipe.duration
        assert trainer["max_steps" if unit == "steps" else "max_epochs"] == number, step
        assert trainer["devices"] == 3, step
        pairs = 3 * data["batch_size"] * trainer.get("accumulate_grad_batches", 1)
        assert pairs == pytest.approx(recipe.pairs, rel=0.07), step
        if step.stage == "pretrain" and step.label.startswith(("clip", "flip")):
            assert trainer["accumulate_grad_batches"] == 1, "all pairs of a step are each other's negatives"
            assert model["reconstruction"]["contrastive_chunk"] == 16, step
        if step.stage in ("pretrain", "calibrate"):
            rebuilt = model["reconstruction"]
            assert rebuilt["alpha"] == (0.5 if "alpha" not in step.label else rebuilt["alpha"]), step
            assert (rebuilt["text_mask_ratio"], rebuilt["teacher_decay"]) == (0.15, 0.995), step
        if step.stage in ("pretrain", "calibrate", "vqa", "retrieval"):
            assert (encoder["vision"], encoder["text"]) == ("clip_vit_b16", "roberta_base"), step
            assert (encoder["fusion_layers"], encoder["fusion_width"], encoder["fusion_heads"]) == (6, 768, 12), step
        checked += 1
    assert checked > 100


def test_alpha_reaches_pretraining_and_calibration() -> None:
    found = {}
    for cell in plan("figure5", protocols=["clean"], seeds=[0]).cells:
        calibrated = cell.step.source
        assert calibrated is not None
        assert calibrated.source is not None
        both = {
            settings(step)["model"]["init_args"]["reconstruction"]["alpha"] for step in (calibrated, calibrated.source)
        }
        found[cell.row.name] = both
    assert found == {"alpha0.2": {0.2}, "alpha0.5": {0.5}, "alpha0.8": {0.8}}


def callbacks(step: Step) -> str:
    """Which of the two methods' callbacks a training keeps."""
    off = step.options[step.options.index("--callback") + 1 :] if "--callback" in step.options else ()
    names = {"WeightPerturbation": "perturbation", "ModalityCoordination": "coordination"}
    listed = [entry["class_path"].rsplit(".")[-1] for entry in settings(step)["trainer"]["callbacks"]]
    fixed = ", fixed" if "WeightPerturbation.adaptive=false" in off else ""
    return ", ".join(names[name] for name in names if name in listed and f"{name}=off" not in off) + fixed


def test_the_ablation_has_its_eight_lines() -> None:
    found = {}
    for cell in plan("table4", protocols=["clean"], seeds=[0], datasets=["vqa_rad"]).cells:
        chain, step = [], cell.step.source
        while step is not None:
            chain.append(step.stage)
            step = step.source
        found[cell.row.name] = (chain, callbacks(cell.step))
    assert found == {
        "line1": ([], ""),
        "line2": (["pretrain"], ""),
        "line3": (["calibrate"], ""),
        "line4": ([], "coordination"),
        "line5": (["calibrate", "pretrain"], ""),
        "line6": (["pretrain"], "coordination"),
        "line7": (["calibrate"], "coordination"),
        "line8": (["calibrate", "pretrain"], "coordination"),
    }


def test_the_perturbation_is_where_each_line_says() -> None:
    found = {}
    for cell in plan("perturbation-table2", protocols=["clean"], seeds=[0], datasets=["vqa_rad"]).cells:
        assert cell.step.source is not None
        found[cell.row.name] = (callbacks(cell.step.source), callbacks(cell.step))
    assert found == {
        "none": ("", ""),
        "pt": ("perturbation", ""),
        "ft": ("", "perturbation"),
        "fixed": ("perturbation, fixed", "perturbation, fixed"),
        "both": ("perturbation", "perturbation"),
    }


METHODS = {
    f"callbacks.{name}"
    for name in (
        *("WeightPerturbation", "ModalityCoordination", "GradientModulation"),
        *("AdaptiveModulation", "SharpnessAware", "WeightNoise"),
    )
}


@pytest.mark.parametrize("scale", ["embedded", "small", "paper"])
def test_each_rival_is_the_plain_fine_tuning_with_one_method(
    scale: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = {"embedded": Setting(), "small": Setting("small", Path("/data")), "paper": PAPER}[scale]
    made = plan("rivals", setting, protocols=["clean"], seeds=[0])
    first = [cell for cell in made.cells if cell.benchmark == made.cells[0].benchmark]
    assert len({cell.step.source for cell in first}) == 1
    here = workspace(tmp_path)
    found: dict[str, Any] = {}
    for cell in first:
        with pytest.raises(SystemExit):
            run([*here.words(cell.step)[1:], "--print_config"])
        printed = yaml.safe_load(capsys.readouterr().out)
        kept = with_options(printed["trainer"]["callbacks"], printed["callback"])
        (method,) = [callback for callback in kept if callback["class_path"] in METHODS] or [None]
        found[cell.row.name] = method
        if method and method["class_path"] == "callbacks.SharpnessAware":
            assert printed["trainer"]["accumulate_grad_batches"] == 1
    names = {name: method and method["class_path"].split(".")[1] for name, method in found.items()}
    assert names == {
        "plain": None,
        "gm_coord": "ModalityCoordination",
        "ogm_ge": "GradientModulation",
        "agm": "AdaptiveModulation",
        "ggp": "WeightPerturbation",
        "weight_noise": "WeightNoise",
        "sam": "SharpnessAware",
        "asam": "SharpnessAware",
    }
    assert [found[name]["init_args"]["adaptive"] for name in ("sam", "asam")] == [False, True]
    perturbed = "encoder.text" if scale == "small" else "encoder.vision"  # which the small scale freezes
    assert {tuple(found[name]["init_args"]["modules"]) for name in ("ggp", "weight_noise")} == {(perturbed,)}
    timed = dict(made.costs)
    assert list(timed) == ([] if scale == "paper" else list(names))
    for cell in first[: len(timed)]:
        cost = timed[cell.row.name]
        assert cost.options[: len(cell.step.options)] == cell.step.options and cost.source == cell.step.source


def test_stages_are_shared() -> None:
    made = plan("table1", rows=["umd", "m3ae"])
    kinds = [step.stage for step in made.steps if step.command == "fit"]
    # One pre-training a preset; calibration and fine-tuning for 3 data sets, 2 protocols and 2 seeds.
    assert (kinds.count("pretrain"), kinds.count("calibrate"), kinds.count("vqa")) == (2, 12, 24)
    whole = next(cell.step for cell in plan("table4").cells if cell.row.name == "line8")
    assert whole in [cell.step for cell in made.cells if cell.row.name == "umd"]


def test_pretraining_on_the_tasks_pairs_never_reads_a_reworded_test_question() -> None:
    setting = Setting("small", Path("/data"), pretrain_on="task")
    found = plan("table1", setting, rows=["umd"], datasets=["vqa_rad"])
    (pretraining,) = [step for step in found.steps if step.stage == "pretrain"]
    assert settings(pretraining)["data"]["init_args"]["protocol"] == "clean"
    assert all(step.data in found.steps for step in found.steps if step.command == "fit"), "nothing is trained in vain"


def test_captions_never_hold_images_that_a_table_is_tested_on(tmp_path: Path) -> None:
    for name in ("vqa_rad", "slake", "medpix", "rocov2", "roco", "elsewhere"):
        (tmp_path / name).mkdir()
    tables = [scripted("table1", tmp_path, "--scale", "small", "--rows", "umd", "--protocol", "clean")]
    tables.append(scripted("table2", tmp_path, "--scale", "small", "--rows", "umd"))
    (first,), (second,) = ([line for line in text if "umd fit" in line and "pretrain.yaml" in line] for text in tables)
    assert first == second, "one pre-training for both"
    others = [f"VQARAD={tmp_path}/vqa_rad", f"SLAKE={tmp_path}/slake", f"ROCORetrieval={tmp_path}/roco"]
    words = shlex.split(first)
    assert json.loads(words[words.index("--data.exclude_images_of") + 1]) == others
    roots = {word: words[words.index(word) + 1] for word in words if word.endswith("_root")}
    assert roots == {"--data.roco_root": f"{tmp_path}/roco", "--data.medpix_root": f"{tmp_path}/medpix"}
    # The papers pre-train on ROCO and MedICaT; MedPix is asked for.
    (line,) = [line for line in scripted("table2", tmp_path, "--rows", "umd") if "configs/pretrain.yaml" in line]
    assert "medpix" not in line and f"--data.root {tmp_path}" in line
    given = ("--rows", "umd", "--captions", "medpix", "--left_out", "slake")
    (line,) = [line for line in scripted("table2", tmp_path, *given) if "configs/pretrain.yaml" in line]
    assert f"SLAKE={tmp_path}/slake" in line and "VQARAD" not in line and "roco_root" not in line


@pytest.mark.parametrize(
    ("captions", "config", "root"),
    [(("medpix", "slake"), "medpix_slake", "."), (("slake",), "slake_captions", "slake")],
)
def test_captions_made_of_slake_are_pretrained_on_where_they_are_asked_for(
    tmp_path: Path, captions: tuple[str, ...], config: str, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("vqa_rad", "slake", "medpix", "roco"):
        (tmp_path / name).mkdir()
    given = ("--scale", "small", "--rows", "umd", "--protocol", "clean", "--captions", *captions)
    (line,) = [line for line in scripted("table1", tmp_path, *given) if "configs/pretrain.yaml" in line]
    assert f"configs/data/{config}.yaml" in line and f"--data.root {tmp_path / root} " in line
    tested = {"VQARAD": "vqa_rad", "SLAKE": "slake", "ROCORetrieval": "roco"}
    others = [f"{data}={tmp_path / name}" for data, name in tested.items()]
    words = shlex.split(line)
    assert json.loads(words[words.index("--data.exclude_images_of") + 1]) == others
    setting = Setting("small", tmp_path, captions=captions, left_out=("vqa_rad",))
    (step,) = [step for step in plan("table1", setting, rows=["m3ae"], seeds=[0]).steps if step.stage == "pretrain"]
    files = {path.name for path in workspace(tmp_path).files(step)}
    assert {"slake_captions.py", "slake_facts.py", "vqa_rad.py", *(f"{name}.py" for name in captions)} <= files
    assert settings(step)["data"]["class_path"].endswith("MixedCaptions" if len(captions) > 1 else "SLAKECaptions")
    # Nobody who does not ask gets them, and with others they do not go.
    (line,) = [line for line in scripted("table1", tmp_path, *given[: -1 - len(captions)]) if "pretrain.yaml" in line]
    assert "roco_medicat.yaml" in line and "slake_captions" not in line and "--data.slake_root" not in line
    with pytest.raises(SystemExit):
        scripted("table1", tmp_path, "--scale", "small", "--captions", "roco", "slake")
    assert "--captions roco slake: slake goes alone, or with medpix and nothing else" in capsys.readouterr().err


def scripted(name: str, root: Path, *more: str) -> list[str]:
    """The lines of the shell script for a table."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        main(["reproduce", name, "--data_root", str(root), "--dry_run", *more])
    return told.getvalue().replace("\\\n", " ").splitlines()


def test_captions_and_what_is_left_out_of_them_are_read(tmp_path: Path) -> None:
    setting = Setting("small", Path("/data"), captions=("roco", "medpix"), left_out=("vqa_rad",))
    (step,) = [step for step in plan("table1", setting, rows=["m3ae"], seeds=[0]).steps if step.stage == "pretrain"]
    data = settings(step)["data"]["init_args"]
    assert data["exclude_images_of"] == ["VQARAD=/data/vqa_rad"] and data["medpix_root"] == "/data/medpix"
    files = {path.name for path in workspace(tmp_path).files(step)}
    assert {"vqa_rad.py", "leaks.py", "medpix.py", "roco.py"} <= files, "what reads them counts"


def test_a_steps_folder_follows_all_that_its_result_depends_on(tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    benchmark = Benchmark("vqa", "phantom", "clean", 0)
    graph = Graph(Setting())
    start = graph.pretrain("umd", benchmark)
    step = graph.finetune(benchmark, start, coordination=True)

    def folder() -> Path:
        return workspace(tmp_path, configs).folder(step)

    before = folder()
    assert folder() == before
    text = (configs / "pretrain.yaml").read_text()
    (configs / "pretrain.yaml").write_text(text.replace("max_epochs: 8", "max_epochs: 9"))
    assert folder() != before  # the stage that it starts from is another one
    (configs / "pretrain.yaml").write_text(text)
    (configs / "retrieval.yaml").write_text("")
    assert folder() == before  # no part of it


@pytest.mark.parametrize(
    ("pairs", "devices", "most", "expected"),
    [(256, 2, 16, (16, 8)), (256, 3, 16, (16, 5)), (64, 3, 16, (11, 2)), (16, 3, 16, (5, 1)), (64, 4, 16, (16, 1))],
)
def test_the_pairs_of_a_step_are_kept_on_any_number_of_devices(
    pairs: int, devices: int, most: int, expected: tuple[int, int]
) -> None:
    assert split_batch(pairs, devices, most) == expected


@pytest.mark.parametrize("scale", ["embedded", "small", "paper"])
def test_every_kind_of_training_line_is_understood(
    scale: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = {"embedded": Setting(), "small": Setting("small", Path("/data")), "paper": PAPER}[scale]
    one_of_each: dict[object, Step] = {}
    for name in EXPERIMENTS:
        if scale == "small" and (name.startswith("perturbation") or name == "figure3"):
            continue
        for step in plan(name, setting, protocols=["clean"], seeds=[0]).steps:
            if step.command == "fit":
                one_of_each.setdefault((step.stage, step.configs), step)
    here = workspace(tmp_path)
    for step in one_of_each.values():
        with pytest.raises(SystemExit) as ended:
            run([*here.words(step)[1:], "--print_config"])
        assert ended.value.code == 0, step
        printed = yaml.safe_load(capsys.readouterr().out)
        wanted = settings(step)["model"]["init_args"]["optimizer"]["lr"]
        assert printed["model"]["init_args"]["optimizer"]["lr"] == wanted, step
        if scale == "embedded":  # works without network
            encoder = printed["model"]["init_args"]["encoder"]
            assert encoder["vision_weights"] is None and encoder["text_weights"] is None, step
            assert tokenizer_for(encoder["text"], None, encoder["text_options"]) == "embedded", step


@pytest.mark.parametrize("pretrain_on", ["captions", "task"])
@pytest.mark.parametrize("scale", ["embedded", "small", "paper"])
def test_every_plan_names_configs_that_there_are(scale: Any, pretrain_on: Any) -> None:  # noqa: ANN401
    setting = Setting(scale, Path("/data"), pretrain_on=pretrain_on)
    for name in EXPERIMENTS:
        if scale == "small" and (name.startswith("perturbation") or name == "figure3"):
            continue
        named = {config for step in plan(name, setting).steps for config in step.configs}
        assert not [config for config in named if not (CONFIGS / config).is_file()]


def test_the_data_that_is_looked_at_is_the_data_that_is_tested_on() -> None:
    for name, experiment in EXPERIMENTS.items():
        for _, looked_at in plan(name, Setting(), protocols=["clean"], seeds=[0]).data:
            tested = next(cell.step for cell in plan(name, Setting()).cells)
            while tested.data is None:
                assert tested.source is not None
                tested = tested.source
            assert looked_at.configs[0] == tested.configs[0], experiment.name


def test_unknown_rows_and_data_sets_are_named() -> None:
    with pytest.raises(ValueError, match=r"no row 'bert'; it has mae, clip"):
        plan("table1", rows=["bert"])
    with pytest.raises(ValueError, match=r"no data set 'phantom'; it has vqa_rad"):
        plan("table1", datasets=["phantom"])
    with pytest.raises(ValueError, match="nothing is left to perturb"):
        plan("perturbation-table2", Setting("small", Path("/data")))
