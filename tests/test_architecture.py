"""Imports run one way: read from the syntax trees, function-level imports and names in strings included."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("umd", "callbacks", "datamodules")
LOOSE = {"__init__", "cli", "batch", "protocols", "masking", "optim", "checkpoints", "distributed", "files"}
# Folders that put everything together, and the lazy face of the package.
MAY_IMPORT_ALL = ("umd.commands", "umd.inference", "umd.web")
# What the other two packages may know of umd.
SHARED = {"callbacks": ("umd.protocols", "umd.batch", "umd.files"), "datamodules": ("umd.batch", "umd.files")}


def imports(source: str, name: str, is_package: bool = False) -> set[str]:
    """All that a module's source imports, as absolute dotted names; of `from a import b` both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            here = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*here, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                found.add(str(node.args[0].value))
    return found


def inside(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


# What the package's face names are the stages; the other files of that folder are there to be shared by them.
FACE = imports((ROOT / "umd/modules/__init__.py").read_text(encoding="utf-8"), "umd.modules", is_package=True)
STAGES = {name for name in FACE if name.count(".") == 2}
STAGE_NAMES = {f"umd.modules.{name.split('.')[3]}" for name in FACE if name.count(".") == 3}


def forbidden(name: str, imported: str) -> bool:
    """Whether module `name` must not import `imported`."""
    if inside(imported, ["tests"]):
        return True
    for package, shared in SHARED.items():
        if inside(name, [package]):
            other = [other for other in SHARED if other != package]
            allowed = imported == "umd" or inside(imported, shared)
            return inside(imported, other) or (inside(imported, ["umd"]) and not allowed)
    if name in ("umd", "umd.cli") or inside(name, MAY_IMPORT_ALL):
        return False
    if inside(imported, ["callbacks", "datamodules"]):
        return True
    if inside(name, ["umd.encoders", "umd.losses", "umd.heads", "umd.masking"]):
        return inside(imported, ["lightning", "pytorch_lightning", "umd.modules"])
    if name in ("umd.batch", "umd.files"):
        return inside(imported, ["umd"])
    if inside(name, ["umd.reproduce"]):
        return inside(imported, ["umd.modules", "umd.encoders", "umd.heads", "umd.losses"])
    if inside(name, ["umd.modules"]) and name != "umd.modules":
        return imported != name and (imported in STAGES or imported in STAGE_NAMES)
    return False


def violations(source: str, name: str, is_package: bool = False) -> list[str]:
    """What a module imports and must not; the shorter of two names that say the same."""
    wrong = sorted(found for found in imports(source, name, is_package) if forbidden(name, found))
    return [found for found in wrong if not any(inside(found, [other]) for other in wrong if other != found)]


def sources() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_imports_run_one_way() -> None:
    modules = list(sources())
    assert {"umd.modules.pretrain", "callbacks.weight_perturbation", "datamodules.base"} <= {
        name for name, _ in modules
    }
    assert {"umd.modules.pretrain", "umd.modules.calibrate", "umd.modules.vqa"} <= STAGES
    wrong = {
        name: found
        for name, path in modules
        if (found := violations(path.read_text(encoding="utf-8"), name, path.stem == "__init__"))
    }
    assert wrong == {}


def test_umd_has_rooms_and_no_loose_files() -> None:
    assert {path.stem for path in (ROOT / "umd").glob("*.py")} == LOOSE


def test_no_two_files_import_each_other() -> None:
    """Of each file all that it imports, at whatever distance, must not lead back to it."""
    known = {name: path for name, path in sources()}
    # `import a.b` also runs a/__init__.py, but what a face names is there for outsiders: it is no arrow of its own.
    arrows = {
        name: {found for found in imports(path.read_text(encoding="utf-8"), name, path.stem == "__init__")} & set(known)
        for name, path in known.items()
        if path.stem != "__init__"
    }

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        ahead = [name]
        while ahead:
            for target in arrows.get(ahead.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    ahead.append(target)
        return seen

    assert [name for name in arrows if name in reached(name)] == []


@pytest.mark.parametrize(
    ("name", "source", "caught"),
    [
        ("umd.optim", "import callbacks", ["callbacks"]),
        ("umd.modules.base", "def f():\n    from datamodules.vqa import VQADataModule", ["datamodules.vqa"]),
        ("umd.run.paths", "from importlib import import_module\nimport_module('datamodules')", ["datamodules"]),
        ("umd.cli", "import callbacks, datamodules, umd.modules", []),
        ("umd.commands.a", "import datamodules", []),
        ("umd.run.folder", "from callbacks import FiniteGuard", ["callbacks"]),
        ("datamodules.a", "from umd.files import UserError", []),
        ("umd.files", "import umd.protocols", ["umd.protocols"]),
        ("umd.cli", "from tests.synthetic import vqa_batch", ["tests.synthetic"]),
        ("callbacks.a", "from umd.protocols import HasReport\nfrom umd import batch\nfrom callbacks import b", []),
        ("callbacks.a", "from umd import modules", ["umd.modules"]),
        ("callbacks.a", "if TYPE_CHECKING:\n    from umd.encoders import TEXT", ["umd.encoders"]),
        ("callbacks.a", "from datamodules import VQARAD", ["datamodules"]),
        ("datamodules.a", "from umd.batch import VQABatch\nimport datamodules.base", []),
        ("datamodules.a", "from umd.protocols import HasAnswers", ["umd.protocols"]),
        ("umd.losses.a", "import lightning.pytorch as pl", ["lightning.pytorch"]),
        ("umd.heads.a", "from lightning import LightningModule", ["lightning"]),
        ("umd.encoders.a", "from ..modules import base", ["umd.modules"]),
        ("umd.modules.vqa", "from umd.modules.umd_stage import UMDStage\nfrom .reconstruction import Terms", []),
        ("umd.modules.vqa", "from umd.modules.pretrain import MRPretrain", ["umd.modules.pretrain"]),
        ("umd.modules.vqa", "from .calibrate import TDCalib", ["umd.modules.calibrate"]),
        ("umd.modules.vqa", "from umd.modules import TDCalib", ["umd.modules.TDCalib"]),
        ("umd.modules.base", "from umd.modules import vqa", ["umd.modules.vqa"]),
        ("umd.batch", "from umd.masking import IGNORED", ["umd.masking"]),
    ],
)
def test_the_check_itself(name: str, source: str, caught: list[str]) -> None:
    assert violations(source, name) == caught


def test_relative_imports_of_a_package_are_resolved() -> None:
    assert imports("from .vqa import A", "umd.modules", is_package=True) == {"umd.modules.vqa", "umd.modules.vqa.A"}
    assert imports("from . import base", "umd.modules.vqa") == {"umd.modules", "umd.modules.base"}
    assert imports("from ..batch import B", "umd.modules.vqa") == {"umd.batch", "umd.batch.B"}
