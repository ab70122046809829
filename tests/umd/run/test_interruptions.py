"""Whatever ends a training, and whenever: what it left can be gone on from, and the end is the same."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.umd.run.test_resume import differences, read, start
from umd.checkpoints import read_checkpoint
from umd.commands.train import run
from umd.modules import MRPretrain

OFTEN = (
    "--trainer.callbacks+={class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: "
    "{every_n_train_steps: 2, filename: last, enable_version_counter: false}}"
)
LONG = [OFTEN, "--trainer.max_epochs=3", "--data.size=32", "--trainer.limit_train_batches=6"]


def same_end(folder: Path, wanted: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        assert list(differences(read(folder / "checkpoints" / name), read(wanted / "checkpoints" / name))) == []
    assert len(list((folder / "checkpoints").iterdir())) == 2


# kill -9


def train(root: Path) -> None:
    """Start, or go on where there is something to go on from, as a user would."""
    torch.set_num_threads(1)
    folder = root / "runs" / "pretrain" / "default"
    kept = [folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
    checkpoint = next((path for path in kept if path.exists()), None)
    if checkpoint is None:
        start("pretrain", root, *LONG)
    else:
        run(["fit", f"--ckpt_path={checkpoint}"])


def killed(process: BaseProcess, folder: Path, chance: random.Random, seconds: float) -> bool:
    """Kill it at a random moment, every other time as soon as a checkpoint is being written; False if it ended."""
    assert process.pid is not None
    if chance.random() < 0.5:
        process.join(chance.uniform(0, seconds))
    else:
        wait = chance.randint(1, 6)
        while process.is_alive() and wait:
            wait -= any(folder.glob("checkpoints/.*.part"))
            time.sleep(0.001)
    if not process.is_alive():
        assert process.exitcode == 0
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """Children are forked from a process that has imported everything, so that each costs little."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.umd.run.test_interruptions"])
    root, wanted = tmp_path / "run", tmp_path / "wanted"
    folder = root / "runs" / "pretrain" / "default"
    began = time.monotonic()
    whole = context.Process(target=train, args=(root,))
    whole.start()
    whole.join()
    seconds = time.monotonic() - began
    assert whole.exitcode == 0
    folder.rename(wanted)
    chance, kills, endings = random.Random(0), 0, 0
    while kills < 20 or endings == 0:
        process = context.Process(target=train, args=(root,))
        process.start()
        if kills < 20 and killed(process, folder, chance, seconds):
            kills += 1
        process.join()
        for path in folder.glob("checkpoints/*.ckpt"):
            read_checkpoint(path)  # whole, or not there
        if process.exitcode == 0:
            same_end(folder, wanted)
            shutil.rmtree(folder)
            endings += 1
        else:
            assert process.exitcode == -signal.SIGKILL


# Signals and exceptions inside a step


def at_step(monkeypatch: pytest.MonkeyPatch, batch: int, happens: Any) -> None:  # noqa: ANN401
    """Something happens in the forward of one training batch, while the weights are perturbed."""
    terms = MRPretrain.terms
    calls = iter(range(10**6))

    def interrupted(self: MRPretrain, *arguments: Any) -> Any:  # noqa: ANN401
        found = terms(self, *arguments)
        if self.training and next(calls) == batch:
            happens()
        return found

    monkeypatch.setattr(MRPretrain, "terms", interrupted)


@pytest.fixture
def uninterrupted(tmp_path: Path) -> Path:
    folder = start("pretrain", tmp_path / "run", "--trainer.accumulate_grad_batches=2")
    wanted = tmp_path / "wanted"
    folder.rename(wanted)
    return wanted


ON_EXCEPTION = (
    "--trainer.callbacks+={class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: "
    "{every_n_epochs: 100, save_on_exception: true, filename: crash, dirpath: %s}}"
)


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


def test_a_crash_inside_a_step_leaves_its_beginning(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of an unfinished step are read again, with the same dropout; the perturbation is undone."""
    more = ["--trainer.accumulate_grad_batches=2", ON_EXCEPTION % (tmp_path / "crash")]
    with monkeypatch.context() as patch:
        at_step(patch, 4, crash)  # the second of two micro-batches
        with pytest.raises(Crash):
            start("pretrain", tmp_path / "run", *more)
    left = tmp_path / "crash" / "crash.ckpt"
    run(["fit", f"--ckpt_path={left}", f"--runs={tmp_path / 'run' / 'again'}", "--name=default"])
    again = tmp_path / "run" / "again" / "pretrain" / "default"
    found, wanted = read(again / "checkpoints" / "last.ckpt"), read(uninterrupted / "checkpoints" / "last.ckpt")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"):
        assert list(differences(found[part], wanted[part])) == [], part


def test_no_checkpoint_is_written_while_an_update_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the weights have moved and the teacher has not."""
    moved = MRPretrain.after_optimizer_step

    def interrupted(self: MRPretrain, *arguments: Any) -> None:  # noqa: ANN401
        if self.global_step == 2:
            raise KeyboardInterrupt
        moved(self, *arguments)

    monkeypatch.setattr(MRPretrain, "after_optimizer_step", interrupted)
    with pytest.raises(SystemExit):
        start("pretrain", tmp_path / "run", ON_EXCEPTION % (tmp_path / "crash"))
    assert not (tmp_path / "crash" / "crash.ckpt").exists()
    assert "not written: the weights were just being updated" in caplog.text


def test_an_interrupt_by_hand_says_how_to_go_on_and_leads_to_the_same_end(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Lightning lets all later interrupts go unheard

    def interrupt() -> None:
        raise KeyboardInterrupt

    def stop_at(batch: int) -> str:
        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level("INFO"):
            at_step(patch, batch, interrupt)
            with pytest.raises(SystemExit):
                start("pretrain", tmp_path / "run", "--trainer.accumulate_grad_batches=2")
        return caplog.messages[-1]

    assert stop_at(1) == "stopped; nothing was saved yet"
    shutil.rmtree(tmp_path / "run" / "runs")
    advice = stop_at(4)
    command = "stopped; go on with umd "
    assert advice.startswith(command)
    run(advice.removeprefix(command).split())
    same_end(tmp_path / "run" / "runs" / "pretrain" / "default", uninterrupted)


def test_slurm_requeues_between_two_steps(tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes in a perturbed forward; the job is run again with the very same command."""
    for name, value in {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }.items():
        monkeypatch.setenv(name, value)
    more = ["--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=2"]
    with monkeypatch.context() as patch:

        def requeue() -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

        at_step(patch, 3, requeue)
        at_step(patch, 5, crash)  # the job's end
        with pytest.raises(Crash):
            start("pretrain", tmp_path / "run", *more)
    folder = tmp_path / "run" / "runs" / "pretrain" / "default"
    assert read(folder / "hpc_ckpt_1.ckpt")["umd"]["position"]["total"] == 5
    start("pretrain", tmp_path / "run", *more)
    same_end(folder, uninterrupted)
