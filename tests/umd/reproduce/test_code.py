"""A step's digest covers the code that it runs: all of it, and not much more."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path
from types import FrameType

import pytest

from tests.umd.reproduce.test_plan import CONFIGS, PAPER, ROOT, workspace
from umd.commands.short_names import learn_short_names
from umd.commands.train import run
from umd.reproduce.code import PACKAGES, Code
from umd.reproduce.graph import Benchmark, Graph
from umd.reproduce.scales import PHANTOM, Setting
from umd.reproduce.steps import Step

VQA_RAD = Graph(PAPER).finetune(Benchmark("vqa", "vqa_rad", "clean", 0), None, coordination=True)
GGP = Graph(PAPER).contrastive("adaptive")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the three packages."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def inside(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / package) for package in PACKAGES)


def digest(tree: Path, step: Step = VQA_RAD) -> str:
    return workspace(tree, CONFIGS, Code(tree)).code_of(step)


def change(tree: Path, path: str, line: str = "# another version") -> None:
    assert (tree / path).is_file(), f"{path} has moved: name another file in this test"
    with (tree / path).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")


def test_what_a_fine_tuning_does_not_run_leaves_it_alone(tree: Path) -> None:
    before = digest(tree)
    (tree / "datamodules/other.py").write_text("class Other:\n    pass\n")
    (tree / "datamodules/other.json").write_text("{}")
    change(tree, "datamodules/other.py", "from importlib import resources\nFILE = 'other.json'")
    change(tree, "datamodules/__init__.py", "from datamodules.other import Other")
    for path in (
        "datamodules/melinda.py",
        "umd/reproduce/report.py",
        "umd/reproduce/paper.json",
        "callbacks/feature_writer.py",
        "umd/commands/compare.py",
        "umd/modules/retrieval.py",
        "umd/encoders/lstm.py",
    ):
        change(tree, path)
    (tree / "README.md").write_text("")
    assert digest(tree) == before


def test_what_it_runs_changes_its_digest(tree: Path) -> None:
    before = digest(tree)
    files = {path.relative_to(ROOT).as_posix() for path in workspace(tree).files(VQA_RAD)}
    runs = {
        "umd/losses/answering.py",
        "umd/encoders/clip.py",  # its encoders, found by the names that a config gives
        "umd/encoders/bert.py",
        "umd/encoders/registry.py",
        "datamodules/vqa.py",
        "datamodules/vqa_rad.py",
        "datamodules/vqa_rad_splits.json",
        "datamodules/embedded_vocabulary.txt",
        "callbacks/modality_coordination.py",
        "umd/run/resume.py",
        "umd/commands/train.py",
        "umd/optim.py",
    }
    assert runs - files == set()
    change(tree, "umd/losses/answering.py")
    assert digest(tree) != before


def test_an_encoder_counts_where_it_is_asked_for(tree: Path) -> None:
    both = digest(tree), digest(tree, GGP)
    change(tree, "umd/encoders/vit.py")
    assert digest(tree) == both[0]
    assert digest(tree, GGP) != both[1]


@pytest.mark.parametrize(
    "line",
    [
        "import os\nos.environ['OMP_NUM_THREADS'] = '4'",
        "import torch\ntorch.set_num_threads(4)",
        "import torch\nif True:\n    torch.backends.mkldnn.enabled = False",
        "NAME = 'x'\nfrom umd.encoders.registry import VISION\nVISION.register(NAME)",
    ],
)
def test_a_file_that_acts_when_it_is_imported_counts_wherever_it_is_loaded(tree: Path, line: str) -> None:
    before = digest(tree)
    change(tree, "datamodules/melinda.py", line)
    assert digest(tree) != before


def test_names_are_followed_through_faces_aliases_and_modules(tmp_path: Path) -> None:
    files = {
        "umd/__init__.py": "from umd import inner\nfrom umd.inner import Thing",
        "umd/inner/__init__.py": "from .a import thing as Thing\nfrom .b import other\nfrom . import c",
        "umd/inner/a.py": "",
        "umd/inner/b.py": "def other():\n    from ..tool import help_",
        "umd/inner/c.py": "",
        "umd/tool.py": "",
        "umd/by_name.py": "import umd\numd.Thing()",
        "umd/by_module.py": "from umd import inner as i\nprint(i.other)",
        "umd/as_value.py": "import umd.inner as i\nprint(getattr(i, input()))",
        "umd/late.py": "from importlib import import_module\nimport_module('umd.inner.b')",
        "umd/unused.py": "import umd.inner",
        "callbacks/__init__.py": "",
        "datamodules/__init__.py": "",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    code = Code(tmp_path)

    def found(entry: str, *words: str) -> set[str]:
        paths = {path.relative_to(tmp_path).as_posix() for path in code.files(f"umd.{entry}", words)}
        return {path.removeprefix("umd/") for path in paths} - {f"{entry}.py"}

    whole = {"inner/__init__.py", "inner/a.py", "inner/b.py", "inner/c.py", "tool.py"}
    assert found("by_name") == {"inner/a.py"}
    assert found("by_module") == {"inner/b.py", "tool.py"}
    assert found("as_value") == whole
    assert found("late") == {"inner/b.py", "tool.py"}
    assert found("unused") == set()
    assert found("unused", "umd.Thing") == found("unused", "Thing") == {"inner/a.py"}


@pytest.mark.parametrize("stage", ["vqa", "contrastive_pretrain"])
def test_every_function_that_a_training_calls_is_in_a_file_that_counts(stage: str, tmp_path: Path) -> None:
    """Watched while it runs, its closing test included."""
    graph = Graph(Setting())
    vqa = graph.finetune(Benchmark("vqa", PHANTOM, "clean", 0), None, coordination=True)
    step = vqa if stage == "vqa" else graph.contrastive("adaptive")
    here = workspace(tmp_path)
    called: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function, no module or class
            called.add(frame.f_code.co_filename)

    learn_short_names()  # which imports every data set, and calls what their files call by being imported
    words = here.words(step)[1:]
    few = [f"--trainer.limit_{split}_batches=1" for split in ("train", "val", "test")]
    sys.setprofile(note)
    try:
        run([*words, *few, "--trainer.max_epochs=1", "--data.size=16"])
    finally:
        sys.setprofile(None)
    ours = {Path(name) for name in called if inside(Path(name))}
    faces = {path for path in ours if path.name == "__init__.py"}  # they look a name up, no more
    assert len(ours) > 20
    assert ours - faces - here.files(step) == set()
