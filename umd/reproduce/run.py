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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umd.files import UserError, write_whole
from umd.reproduce.board import Board
from umd.reproduce.outcome import Outcome
from umd.reproduce.steps import Step, Workspace, in_order

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
    with _alone(workspace.out) as lock, board.showing(outcomes):
        for step, outcome in outcomes.items():
            lacking = [needed for needed in (step.data, step.source) if needed and outcomes[needed].state != "done"]
            if workspace.done(step):
                outcome.state = "done"
            elif lacking:
                outcome.state, outcome.reason = "not run", f"{lacking[0]}: {outcomes[lacking[0]].state}"
                board.note(step, outcome)
            elif step.command == "fit" and workspace.checkpoint(step).is_file() and not _mark(step, workspace).exists():
                # Its settings may be others than the step's: started by hand, and changed.
                outcome.state = "failed"
                outcome.reason = (
                    f"{workspace.folder(step)} holds a training that umd reproduce did not start: move it away"
                )
                board.note(step, outcome)
            else:
                outcome.state = "running"
                board.note(step, outcome)
                began = time.monotonic()
                outcome.reason = _execute(step, workspace, lock, board)
                outcome.seconds = time.monotonic() - began
                outcome.state = "failed" if outcome.reason else "done"
                board.note(step, outcome)
    return outcomes


def command_of(step: Step, workspace: Workspace) -> list[str]:
    """The words with which a step is started now: anew, or from the checkpoint that an interruption left."""
    if step.command != "fit":
        return workspace.words(step)
    if workspace.checkpoint(step).is_file():
        return workspace.resuming_words(step)
    # What an interrupted start left without a checkpoint is worth nothing; the folder is this step's alone.
    return [*workspace.words(step), "--overwrite", "true"]


def _execute(step: Step, workspace: Workspace, lock: int, board: Board) -> str:
    """Run one step to its end; "" or why it failed."""
    words = command_of(step, workspace)
    log = log_of(step, workspace)
    log.parent.mkdir(parents=True, exist_ok=True)
    _mark(step, workspace).touch()
    (workspace.folder(step) / PROGRESS_FILE).unlink(missing_ok=True)  # of a process that is gone
    with log.open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        command = [*PROGRAM, *words[1:]]
        environment = os.environ | {"COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
        # The child keeps the lock, so that no second call starts beside it should this one be killed.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, pass_fds=(lock,), preexec_fn=_die_with_parent
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
    if step.command == "fit":
        _write_done(step, workspace, words)
    if not workspace.done(step):
        return f"it ended without a result; the end of {log}:\n{_tail(log)}"
    return ""


def log_of(step: Step, workspace: Workspace) -> Path:
    """Where the output of a step goes."""
    return workspace.out / "logs" / step.stage / f"{workspace.name(step)}.log"


def _mark(step: Step, workspace: Workspace) -> Path:
    """Is there once the step was started here, and so with its own settings."""
    return log_of(step, workspace).with_suffix(".started")


def _write_done(step: Step, workspace: Workspace, words: Sequence[str]) -> None:
    content = {"fingerprint": workspace.fingerprint(step), "command": workspace.words(step), "last_start": list(words)}
    write_whole(workspace.folder(step) / "done.json", json.dumps(content, indent=1) + "\n")


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


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Hold the folder's lock; it is freed when this process and the step that it runs have ended."""
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
