"""A phantom's folder is made once and whole, and never over others' files."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules import PhantomCaptions, PhantomVQA
from datamodules.phantom.folder import STAMP_FILE, VERSION, build_once, cache_folder
from tests.datamodules.phantom.test_layouts import digest
from umd.files import UserError


def test_bad_numbers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size must be at least 2, not 1"):
        PhantomVQA(str(tmp_path), size=1)
    with pytest.raises(ValueError, match="phantom_seed must be at least 0, not -1"):
        PhantomCaptions(str(tmp_path), phantom_seed=-1)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="was not written by the phantom generator"):
        PhantomVQA(str(tmp_path), size=6).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_phantom_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    PhantomVQA(str(root), size=6).prepare_data()
    before = digest(root)
    PhantomVQA(str(root), size=6, seed=7, batch_size=2).prepare_data()
    for other in (PhantomVQA(str(root), size=6, phantom_seed=1), PhantomCaptions(str(root), size=6)):
        with pytest.raises(UserError, match="holds another phantom"):
            other.prepare_data()
    assert digest(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_of_two_at_once_the_first_to_finish_wins(tmp_path: Path) -> None:
    root = tmp_path / "below" / "root"

    def fast(folder: Path) -> None:
        (folder / "data").write_text("fast")

    def slow(folder: Path) -> None:
        (folder / "data").write_text("slow")
        build_once(root, {"size": 1}, fast)

    build_once(root, {"size": 1}, slow)
    assert (root / "data").read_text() == "fast"
    assert [path.name for path in root.parent.iterdir()] == ["root"]

    def beaten(folder: Path) -> None:
        build_once(root.with_name("next"), {"size": 2}, lambda other: None)

    with pytest.raises(UserError, match="holds another phantom"):
        build_once(root.with_name("next"), {"size": 1}, beaten)


def test_nothing_is_left_of_a_build_that_failed(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "root", {}, fail)
    assert not list(tmp_path.iterdir())
    build_once(tmp_path / "root", {}, lambda folder: None)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [STAMP_FILE]


def test_the_default_root_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMD_CACHE", str(tmp_path))
    assert PhantomVQA(size=12).root == tmp_path / "phantom" / f"vqa-12-0-v{VERSION}"
    monkeypatch.delenv("UMD_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "umd" / "phantom"
