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
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umd.files import UserError, write_whole
from umd.reproduce.board import Board
from umd.reproduce.outcome import Outcome
from umd.reproduce.steps import Step, Workspace, chains, in_order
from umd.reproduce.takeover import first_difference

PROGRAM = (sys.executable, "-m", "umd.cli")
LOG_LINES = 15
PROGRESS_FILE = "progress.json"


def run(steps: Sequence[Step], workspace: Workspace, board: Board) -> dict[Step, Outcome]:
    """Run what is not done, in order; a step that fails stops those that start from it, and those only they need.

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
    results = chains(steps)
    lost: set[Step] = set()
    with _held(workspace.out, alone=True) as lock, board.showing(outcomes):
        for step, outcome in outcomes.items():
            # Once nothing can be made any more, the caller says so, in fewer lines than one a step.
            over = all(lost.intersection(chain) for chain in results)
            obstacle = _obstacle(step, results, lost)
            if workspace.done(step):
                outcome.state = "done"
            elif obstacle:
                outcome.state, outcome.reason = "not run", f"{obstacle}: {outcomes[obstacle].state}"
                if not over:
                    board.note(step, outcome)
            else:
                _attend(step, outcome, workspace, lock, board)
            if outcome.state != "done":
                lost.add(step)
    return outcomes


def run_one(step: Step, steps: Sequence[Step], workspace: Workspace, board: Board) -> Outcome:
    """Run one step, if what it needs is done and so is the data of a result that it is for; others may run beside it.

    Args:
        step: which.
        steps: all that is wanted, as for `run`.
        workspace: where it lies.
        board: shows where the work is.

    Raises:
        UserError: `run` is at work in the same folder.
    """
    outcome = Outcome()
    needed = {other for other in in_order(steps) if other in (step.data, step.source) or other.command == "data"}
    lacking = {other for other in needed - {step} if not workspace.done(other)}
    obstacle = None if step.command == "data" else _obstacle(step, chains(steps), lacking)
    with _held(workspace.out, alone=False) as lock, board.showing({step: outcome}):
        if workspace.done(step):
            outcome.state = "done"
        elif obstacle:
            outcome.state, outcome.reason = "not run", f"{obstacle}: not done"
            board.note(step, outcome)
        else:
            _attend(step, outcome, workspace, lock, board)
    return outcome


def _obstacle(step: Step, results: Sequence[Sequence[Step]], lost: Set[Step]) -> Step | None:
    """What stands in the way of each result that a step is for; None where one can still be made.

    Args:
        step: which.
        results: of each wanted result all steps that it takes, as `chains` gives them.
        lost: steps that are not to be had.
    """
    found = [next((one for one in chain if one in lost), None) for chain in results if step in chain]
    return found[0] if all(found) else None


def _attend(step: Step, outcome: Outcome, workspace: Workspace, lock: int, board: Board) -> None:
    """Run a step and note what becomes of it."""
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
