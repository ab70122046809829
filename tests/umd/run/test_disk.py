"""A full disk, a folder that cannot be written, two trainings in one, a dead worker: one clear line, nothing lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.configs.test_configs import CONFIGS, SHORT, TINY, TINY_UMD
from umd.checkpoints import read_checkpoint
from umd.cli import main
from umd.files import UserError
from umd.run.checkpoint_io import AtomicCheckpointIO, remove_leftovers
from umd.run.lock import RunLock

LONGER = ["--trainer.max_epochs=3", "--trainer.max_steps=-1", "--test_after_fit=false"]


def command(folder: Path, *more: str) -> list[str]:
    config = f"--config={CONFIGS / 'vqa.yaml'}"
    data = [f"--data.root={folder / 'data'}", "--data.size=12"]
    return ["fit", config, *TINY, *TINY_UMD, *SHORT, *data, f"--runs={folder / 'runs'}", *more]


def run_of(folder: Path) -> Path:
    return folder / "runs" / "vqa" / "default"


def contents(run: Path) -> dict[str, bytes]:
    """All that a user would miss: checkpoints and results."""
    found = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    return found | {path.name: path.read_bytes() for path in run.glob("results.*")}


def ends(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in error, error
    return error


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    main(command(tmp_path))
    return tmp_path


# Checkpoint files


class Full:
    """A file on a disk with room for so many bytes."""

    def __init__(self, path: Path, room: int) -> None:
        self.file, self.room = path.open("wb"), room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *details: object) -> None:
        self.file.close()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    opened = Path.open

    def fill(room: int) -> None:
        def open_full(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:  # noqa: ANN401
            if ".ckpt." in self.name and "w" in mode:
                with monkeypatch.context() as patch:
                    patch.setattr(Path, "open", opened)
                    return Full(self, room)
            return opened(self, mode, *more, **named)

        monkeypatch.setattr(Path, "open", open_full)

    return fill


@pytest.mark.parametrize("room", [0, 100, 5000, 20000])
def test_a_full_disk_leaves_the_earlier_checkpoint(room: int, tmp_path: Path, full_disk: Callable[[int], None]) -> None:
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"state_dict": {"weight": torch.ones(10_000)}}, path)
    before = path.read_bytes()
    full_disk(room)
    with pytest.raises(OSError, match=r"cannot write the checkpoint.*last\.ckpt.*No space left.*as it was"):
        writer.save_checkpoint({"state_dict": {"weight": torch.zeros(10_000)}}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_writer_are_no_checkpoints_and_are_removed(tmp_path: Path) -> None:
    half = tmp_path / f".last.ckpt.{os.uname().nodename}-1.part"
    half.write_bytes(b"half")
    (tmp_path / "notes.part").write_text("the user's own")
    assert not list(tmp_path.glob("*.ckpt"))
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.part"]


def test_a_training_on_a_disk_that_fills_up_ends_in_one_line(
    trained: Path, full_disk: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run_of(trained))
    full_disk(1000)
    last = run_of(trained) / "checkpoints" / "last.ckpt"
    error = ends(["fit", f"--ckpt_path={last}", *LONGER], capsys)
    assert "No space left on device" in error
    assert contents(run_of(trained)) == before
    read_checkpoint(last)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 3 MB, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_small_disk(small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever file is the first without room, the command says so, and what it wrote before can be read."""
    every = (
        "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {every_n_train_steps: 1, save_top_k: -1}}"
    )
    given = command(small_disk, *LONGER, "--trainer.max_epochs=40", f"--trainer.callbacks+={every}")
    given = [option.replace(str(small_disk / "data"), str(tmp_path / "data")) for option in given]
    assert "No space left on device" in ends(given, capsys)
    kept = list((run_of(small_disk) / "checkpoints").iterdir())
    assert kept
    for path in kept:
        read_checkpoint(path)


# Folders


def test_a_run_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(tmp_path).parent.mkdir(parents=True)
    run_of(tmp_path).write_text("a file where the folder should be")
    assert f"cannot write to '{run_of(tmp_path)}'" in ends(command(tmp_path), capsys)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="where the system makes folders, and nobody else")
def test_a_place_where_nobody_makes_folders() -> None:
    with pytest.raises(UserError, match=r"cannot make the folder '/proc/x/vqa': .*Choose another --runs"):
        RunLock(Path("/proc/x/vqa"))


def test_a_read_only_run_folder(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As root may write everywhere, the system's answer is simulated."""
    before = contents(run_of(trained))
    last = run_of(trained) / "checkpoints" / "last.ckpt"
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:  # noqa: ANN401
        if set(mode) & set("wax+") and run_of(trained) in self.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return opened(self, mode, *more, **named)

    monkeypatch.setattr(Path, "open", refuse)
    error = ends(["fit", f"--ckpt_path={last}", *LONGER], capsys)
    assert f"cannot write to '{run_of(trained)}': Read-only file system" in error
    monkeypatch.undo()
    assert contents(run_of(trained)) == before


@pytest.mark.parametrize("tool", ["reproduce", "data", "compare"])
def test_a_place_where_a_tool_may_not_write(
    tool: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = str(trained / "closed" / "x")
    arguments = {
        "reproduce": ["table1", "--out", closed],
        "data": ["--data=PhantomVQA", f"--data.root={trained / 'data'}", "--data.size=12", "--out", closed],
        "compare": [str(run_of(trained)), "--csv", closed],
    }[tool]
    made = os.mkdir

    def refuse(path: Any, *more: Any, **named: Any) -> None:  # noqa: ANN401
        if "closed" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        made(path, *more, **named)

    monkeypatch.setattr(os, "mkdir", refuse)
    error = ends([tool, *arguments], capsys)
    wanted = f"umd: cannot write '{Path(closed).parent if tool == 'compare' else closed}': Read-only file system"
    assert wanted in error.splitlines()


HOLD = """
import sys, time
from pathlib import Path
from umd.run.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_two_trainings_in_one_folder(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is told who is there; a holder that was killed holds nothing up."""
    folder = run_of(trained)
    last = folder / "checkpoints" / "last.ckpt"
    before = contents(folder)
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        error = ends(["fit", f"--ckpt_path={last}", *LONGER], capsys)
        assert f"'{folder}' is in use: process {other.pid} on {os.uname().nodename}, since 20" in error
        error = ends([*command(trained), "--overwrite=true"], capsys)
        assert "is in use" in error
        assert contents(folder) == before
        other.kill()
    RunLock(folder).release()


# Workers


def test_a_worker_that_dies(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from datamodules.loading import EndlessSequence

    before = contents(run_of(trained))
    last = run_of(trained) / "checkpoints" / "last.ckpt"

    def die(self: object, keys: list[int]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(EndlessSequence, "__getitems__", die)
    error = ends(["fit", f"--ckpt_path={last}", *LONGER, "--data.num_workers=1"], capsys)
    assert "a data loading worker died" in error and f"--ckpt_path {last}" in error
    assert contents(run_of(trained)) == before
