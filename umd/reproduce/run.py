"""Runs the steps of a plan, one after the other: skips what is done, goes on where one was interrupted."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umd.files import UserError, write_whole
from umd.reproduce.board import Board
from umd.reproduce.outcome import Outcome
from umd.reproduce.steps import Step, Workspace, in_order
from umd.reproduce.takeover import first_difference

PROGRAM = (sys.executable, "-m", "umd.cli")
LOG_LINES = 15
PROGRESS_FILE = "progress.json"


def run(steps: Sequence[Step], workspace: Workspace, board: Board) -> dict[Step, Outcome]:
    """Run what is not done, in order; a step that fails stops those that start from it, and no others.

    Args:
        steps: what is wanted; what they start from is run too.
        workspace: where it lies.
        board: shows where the work is.

    Returns:
        What became of each step.

    Raises:
        UserError: another process works in the same folder.
    """
    outcomes = {step: Outcome() for step in in_order(steps)}
    with _held(workspace.out, alone=True) as lock, board.showing(outcomes):
        for step in outcomes:
            _attend(step, outcomes, workspace, lock, board)
    return outcomes


def run_one(step: Step, workspace: Workspace, board: Board) -> Outcome:
    """Run one step, if all that it needs is done; others may run beside it.

    Raises:
        UserError: `run` is at work in the same folder.
    """
    outcomes = {step: Outcome()}
    with _held(workspace.out, alone=False) as lock, board.showing(outcomes):
        _attend(step, outcomes, workspace, lock, board)
    return outcomes[step]


def _attend(step: Step, outcomes: Mapping[Step, Outcome], workspace: Workspace, lock: int, board: Board) -> None:
    """Bring a step to its end, if that can be done."""
    outcome = outcomes[step]
    lacking = [needed for needed in (step.data, step.source) if needed and not workspace.done(needed)]
    if workspace.done(step):
        outcome.state = "done"
        return
    if lacking:
        state = outcomes[lacking[0]].state if lacking[0] in outcomes else "not done"
        outcome.state, outcome.reason = "not run", f"{lacking[0]}: {state}"
    else:
        outcome.state = "running"
        board.note(step, outcome)
        began = time.monotonic()
        outcome.reason = _in_the_way(step, workspace) or _execute(step, workspace, lock, board)
        outcome.seconds = time.monotonic() - began
        outcome.state = "failed" if outcome.reason else "done"
    board.note(step, outcome)


def _in_the_way(step: Step, workspace: Workspace) -> str:
    """Why the training that lies in a step's folder cannot be gone on with; "" where it can, or there is none."""
    if step.command != "fit" or not workspace.checkpoint(step).is_file():
        return ""
    try:
        different = first_difference(step, workspace, PROGRAM)
    except UserError as error:
        return str(error)
    if different is None:
        return ""
    return f"{workspace.folder(step)} holds a training with other settings: {different}. Move it away"


def command_of(step: Step, workspace: Workspace) -> list[str]:
    """The words with which a step is started now: anew, or from the checkpoint that an interruption left."""
    words = workspace.next_words(step)
    # What an interrupted start left without a checkpoint is worth nothing; the folder is this step's alone.
    return [*words, "--overwrite", "true"] if step.command == "fit" and "--ckpt_path" not in words else words


def _execute(step: Step, workspace: Workspace, lock: int, board: Board) -> str:
    """Run one step to its end; "" or why it failed."""
    words = command_of(step, workspace)
    log = workspace.log(step)
    log.parent.mkdir(parents=True, exist_ok=True)
    (workspace.folder(step) / PROGRESS_FILE).unlink(missing_ok=True)  # of a process that is gone
    with log.open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        command = [*PROGRAM, *words[1:]]
        # The child keeps the lock, so that no second call starts beside it should this one be killed.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=_environment(), pass_fds=(lock,), preexec_fn=_die_with_parent
        )
        try:
            while process.poll() is None:
                board.look(step, _progress(workspace, step))
                time.sleep(0.2)
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    if process.returncode != 0:
        return f"exit code {process.returncode}; the end of {log}:\n{_tail(log)}"
    if step.command == "data" and not workspace.has_test_split(step):
        return "the data has no test split, so nothing can be tested on it"
    if not workspace.has_result(step):
        return f"it ended without a result; the end of {log}:\n{_tail(log)}"
    _write_done(step, workspace, words)
    return ""


def _write_done(step: Step, workspace: Workspace, words: Sequence[str]) -> None:
    content = {"fingerprint": workspace.fingerprint(step), "command": workspace.words(step), "last_start": list(words)}
    write_whole(workspace.done_file(step), json.dumps(content, indent=1) + "\n")


def _progress(workspace: Workspace, step: Step) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((workspace.folder(step) / PROGRESS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    shown = [line.rstrip() for line in lines if line.strip()]
    return "\n".join(shown[-LOG_LINES:])


def _environment() -> dict[str, str]:
    """What a step sees of the world."""
    own = {"COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
    if os.environ.get("SLURM_NTASKS") == "1":
        own["SLURM_JOB_NAME"] = "bash"  # which tells Lightning that it starts a process for each device, not Slurm
    return os.environ | own


@contextmanager
def _held(out: Path, *, alone: bool) -> Iterator[int]:
    """Hold the folder's lock; it is freed when this process and the step that it runs have ended."""
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another umd reproduce works in '{out}', or a stage of one that was killed is still ending: "
                "wait for it, or give another --out"
            ) from None
        yield handle
    finally:
        os.close(handle)


def _die_with_parent() -> None:
    """Ask Linux to end a training whose caller is killed; elsewhere it runs on, and holds the lock."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
