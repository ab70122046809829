"""The best checkpoints of a training that goes on from another place than the one that it was written in."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

logger = logging.getLogger(__name__)


def find_best_again(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Point the checkpoint callbacks' states in a loaded checkpoint to files that are there.

    Lightning notes full paths and forgets the best checkpoint where the folder has another name now: the run was
    moved or copied, or is called from another working directory. Here a noted file is looked for under its name
    in the folder of today, and then beside the loaded checkpoint, from where it is copied. One that is nowhere
    is no longer the best, and a warning says so.

    Args:
        trainer: after the callbacks' setup; its `ckpt_path` is the loaded checkpoint.
        checkpoint: what was loaded; changed in place.
    """
    states = checkpoint.get("callbacks", {})
    if trainer.is_global_zero:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.state_key in states and callback.dirpath:
                beside = Path(str(trainer.ckpt_path)).parent
                states[callback.state_key] = _moved(states[callback.state_key], callback, beside)
    if trainer.world_size > 1:
        checkpoint["callbacks"] = states = trainer.strategy.broadcast(states)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.state_key in states:
            callback.current_score = states[callback.state_key]["current_score"]  # Lightning forgets it


def _moved(state: Mapping[str, Any], callback: ModelCheckpoint, beside: Path) -> dict[str, Any]:
    here, there = str(callback.dirpath), str(state["dirpath"])

    def moved(path: str) -> str:
        if not path or os.path.dirname(path) != there:
            return path if path and Path(path).is_file() else ""
        name = os.path.basename(path)
        target, source = os.path.join(here, name), beside / name
        if not Path(target).is_file() and source.is_file():
            Path(here).mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, f"{target}.part")
            os.replace(f"{target}.part", target)
        return target if Path(target).is_file() else ""

    scores = {moved(path): score for path, score in state["best_k_models"].items()}
    if scores.pop("", None) is not None:
        logger.warning(
            "the best checkpoint by %s is no longer there (%s): it is chosen anew from here on",
            callback.monitor,
            ", ".join(os.path.basename(path) for path in state["best_k_models"] if not moved(path)),
        )
    changed = dict(state) | {
        "dirpath": callback.dirpath,
        "best_k_models": scores,
        "best_model_path": moved(state["best_model_path"]),
        "kth_best_model_path": moved(state["kth_best_model_path"]),
        "last_model_path": moved(state["last_model_path"]),
    }
    if callback.monitor is None or len(scores) == len(state["best_k_models"]):
        return changed
    rising = sorted(scores, key=lambda path: float(scores[path]))
    best_first = rising if callback.mode == "min" else rising[::-1]
    none = torch.tensor(math.inf if callback.mode == "min" else -math.inf)
    full = len(scores) == callback.save_top_k
    return changed | {
        "best_model_path": best_first[0] if scores else "",
        "best_model_score": scores[best_first[0]] if scores else None,
        "kth_best_model_path": best_first[-1] if full else "",
        "kth_value": scores[best_first[-1]] if full else none,
    }
