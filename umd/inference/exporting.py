"""From a checkpoint to a folder that can be taken along: network, tokenizer, names, settings, model card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umd.checkpoints import SETTINGS_KEY, read_checkpoint, to_plain
from umd.files import UserError, writing
from umd.inference.folder import CARD, FILES, FORMAT, NAMES, SETTINGS, TOKENIZER, VERSION, Weights, check_place
from umd.inference.graph import trace, write_onnx, write_program
from umd.inference.loading import model_of, tokenizer_in
from umd.inference.model import Model
from umd.inference.model_card import Origin, model_card, results_beside
from umd.inference.network import Embeds, Inputs, probabilities
from umd.inference.opening import load
from umd.inference.stage_network import StageNetwork
from umd.inference.weights import save_weights
from umd.modules import VQAGenerator
from umd.modules.lineage import lineage_in
from umd.run.paths import find_checkpoint

TOLERANCE = 1e-4
"""By how much a probability of an exported program may differ from the checkpoint's; nothing is written otherwise."""


def export(source: str | Path, out: str | Path, *, weights: Weights = "safetensors", overwrite: bool = False) -> Path:
    """Write a trained model into a folder that `umd.load` opens.

    What was written is opened and asked before the folder gets its name.

    Args:
        source: a checkpoint, or the folder of a run, whose best checkpoint is taken.
        out: the folder, new or empty.
        weights: "safetensors" keeps the weights, for this package; "onnx" and "torch" a program of its own.
        overwrite: take the place of an earlier export.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else; or the checkpoint cannot be read; or its network cannot be
            written in this form, or answers otherwise then.
    """
    path, out = find_checkpoint(Path(source).expanduser()), Path(out).expanduser()
    check_place(out, overwrite)
    content = read_checkpoint(path, mapped=True)
    model = model_of(content, path, torch.device("cpu"))
    if weights != "safetensors" and model.settings.task == "pretraining":
        raise UserError(
            f"'{path}' is a checkpoint of {model.settings.stage}, which gives no answers: --format safetensors alone"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = origin_of(content, path.name, digest)
    network = stage_network(model)
    # Of earlier checkpoints the digests tell which they are; where they lay is nobody's business elsewhere.
    lineage = [{**training, "path": None} for training in lineage_in(content)]
    tokenizer = tokenizer_in(content, path)
    settings = {
        "format": FORMAT,
        "version": VERSION,
        "weights": weights,
        "stage": model.settings.stage,
        "task": model.settings.task,
        "link": model.settings.link,
        "temperature": model.settings.temperature,
        "image_size": model.settings.image_size,
        "text_length": model.settings.text_length,
        "blank": list(model.settings.blank),
        "special_tokens": tokenizer["special_tokens"],
        # A program ranks all answers of all questions at once.
        "pairs_at_once": 1 if weights != "safetensors" and isinstance(network.stage, VQAGenerator) else None,
        "init_args": to_plain(dict(network.stage.hparams)),
        "lineage": lineage,
        "checkpoint": {"name": origin.name, "sha256": digest, "step": origin.step, "epoch": origin.epoch},
        "versions": {name: version(name) for name in ("umd", "torch")},
    }
    texts: Mapping[str, object] = {
        SETTINGS: settings,
        NAMES: list(model.settings.names),
        TOKENIZER: json.loads(tokenizer["backend"]),
    }
    parameters = sum(value.numel() for value in network.stage.parameters())
    results = results_beside(path, digest)
    card = model_card(model.settings, weights, lineage, origin, settings["init_args"], parameters, results)
    with whole_folder(out) as folder:
        for name, value in texts.items():
            (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card, encoding="utf-8")
        writers[weights](model, folder / FILES[weights])
        check_same(model, load(folder), exactly=weights == "safetensors")
    return out


def origin_of(content: Mapping[str, Any], name: str, digest: str) -> Origin:
    """What a checkpoint says of itself, without the folders of the machine that it is from."""
    made: Mapping[str, Any] = content[SETTINGS_KEY]
    begun = made.get("started_from") or {}
    # An earlier stage's weights take the place of the published ones.
    published = {} if begun.get("init_from") else {part: begun.get(f"{part}_weights") for part in ("vision", "text")}
    return Origin(
        name=name,
        sha256=digest,
        step=content.get("global_step"),
        epoch=content.get("epoch"),
        data_module=made.get("data", {}).get("class_path"),
        published={part: Path(weights).name for part, weights in published.items() if weights},
    )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which takes its place once all of it is there; else nothing is left."""
    part, old = (out.with_name(f".{out.name}.{os.getpid()}.{ending}") for ending in ("part", "old"))
    with writing(out.parent):
        part.mkdir(parents=True)
        try:
            yield part
            if out.exists():
                out.rename(old)
            part.rename(out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)


def stage_network(model: Model) -> StageNetwork:
    """A checkpoint's network."""
    if not isinstance(model.network, StageNetwork):
        raise TypeError(f"{model} is of no checkpoint")
    return model.network


def made_up(model: Model, pairs: int, length: int) -> Inputs:
    """Random pairs, whose texts have different lengths."""
    random = np.random.default_rng(pairs + length)
    side = model.settings.image_size
    tokens = min(stage_network(model).stage.encoder.text.vocab_size, 1000)
    real = np.maximum(1, length - np.arange(pairs))[:, None]
    return Inputs(
        image=random.integers(0, 256, (pairs, 3, side, side), dtype=np.uint8),
        input_ids=random.integers(0, tokens, (pairs, length)),
        attention_mask=np.arange(length) < real,
        word_ids=np.zeros((pairs, length), dtype=np.int64),
    )


def check_same(model: Model, written: Model, *, exactly: bool) -> None:
    """Ask both models the same.

    Raises:
        UserError: they differ.
    """
    longest = model.settings.text_length
    for pairs, length in ((1, longest), (3, max(1, longest // 2))):
        inputs = made_up(model, pairs, length)
        expected, found = (said(one, inputs) for one in (model, written))
        apart = float(np.abs(expected - found).max())
        if not apart <= (0 if exactly else TOLERANCE):
            raise UserError(f"nothing is written: what the exported model says is {apart:.1g} off the checkpoint's")


def said(model: Model, inputs: Inputs) -> NDArray[np.float32]:
    """Probabilities; scores where there is nothing to choose from; vectors where there are no scores."""
    task, network = model.settings.task, model.network
    if task == "pretraining" and isinstance(network, Embeds):
        return np.stack(
            [
                network.embed_images(inputs.image)[:, 0],
                network.embed_texts(inputs.input_ids, inputs.attention_mask)[:, 0],
            ]
        )
    scores = network.scores(inputs)
    return scores if task == "retrieval" else probabilities(scores, model.settings.link, model.settings.temperature)


def _weights(model: Model, path: Path) -> None:
    save_weights(stage_network(model).stage.state_dict(), path)


def _traced(write: Callable[[Any, Path], None]) -> Callable[[Model, Path], None]:
    def traced(model: Model, path: Path) -> None:
        length = model.settings.text_length
        write(trace(stage_network(model), made_up(model, 2, length), length), path)

    return traced


writers: Mapping[Weights, Callable[[Model, Path], None]] = {
    "safetensors": _weights,
    "onnx": _traced(write_onnx),
    "torch": _traced(write_program),
}
