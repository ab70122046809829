"""Phantom studies on disk, in the layouts of the published data sets.

A writer's files depend on its arguments alone. Every image belongs to one split, in all layouts; the real
VQA-RAD shows its test images in train too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.phantom.images import render
from datamodules.phantom.studies import Study
from datamodules.phantom.text import Question, ask, caption
from umd.files import UserError

Splits = Mapping[str, Sequence[Study]]
"""Studies by split: "train", "validation", "test"; a layout without validation has no use for one."""

_ORGAN_CODES = {"head": "HEAD", "chest": "CHEST", "abdomen": "ABD"}
_SLAKE_TYPES = {"POS": "Position", "COUN": "Quantity", "PRES": "Abnormality"}
_SLAKE_FILES = {"train": "train.json", "validation": "validate.json", "test": "test.json"}
_MELINDA_FILES = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}
_MELINDA_COLUMNS = ("figure_file", "caption", "i_meth", "p_meth", "i_meth_label", "p_meth_label")


def write_vqa_rad(splits: Splits, root: Path, *, questions: int = 6, framed: float = 1 / 3, seed: int = 0) -> None:
    """Writes `images/` and the original single file `VQA_RAD Dataset Public.json`.

    Args:
        splits: Studies of "train" and "test".
        root: An existing folder.
        questions: Questions an image.
        framed: Share of the rows that give a `question_frame`. Those of test rows are, as in VQA-RAD, twins of
            test questions: readers that put all framed questions into train put test images there.
        seed: Of the choice of questions.

    Raises:
        UserError: A split is missing or unknown, or there are too many questions.
    """
    _check_names(splits, ("train", "test"))
    (root / "images").mkdir()
    rows: list[dict[str, Any]] = []
    for number, (split, place, study, asked) in enumerate(_asked(splits, questions, seed)):
        name = f"phantom{split}{place:05d}.jpg"
        _save(study, root / "images" / name)
        rng = np.random.default_rng([seed, number])
        for question in asked:
            phrase = "para" if question.reworded else "freeform"
            has_frame = bool(rng.random() < framed)
            rows.append(
                {
                    "qid": len(rows),
                    "phrase_type": phrase if split == "train" else f"test_{phrase}",
                    "image_name": name,
                    "image_organ": _ORGAN_CODES[study.organ],
                    "evaluation": "evaluated",
                    "question": question.text,
                    "question_rephrase": question.rephrase,
                    "question_relation": "strict agreement",
                    "question_frame": question.frame if has_frame else "NULL",
                    "question_type": question.type,
                    "answer": int(question.answer) if question.answer.isdigit() else question.answer,
                    "answer_type": "CLOSED" if question.closed else "OPEN",
                }
            )
    _write_json(root / "VQA_RAD Dataset Public.json", rows)


def write_slake(splits: Splits, root: Path, *, questions: int = 6, seed: int = 0) -> None:
    """Writes `imgs/xmlabN/source.jpg`, `train.json`, `validate.json` and `test.json`, in English.

    Args:
        splits: Studies of "train", "validation" and "test".
        root: An existing folder.
        questions: Questions an image.
        seed: Of the choice of questions.

    Raises:
        UserError: A split is missing or unknown, or there are too many questions.
    """
    _check_names(splits, tuple(_SLAKE_FILES))
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    qid = 0
    for number, (split, _, study, asked) in enumerate(_asked(splits, questions, seed)):
        name = f"xmlab{number}/source.jpg"
        (root / "imgs" / name).parent.mkdir(parents=True)
        _save(study, root / "imgs" / name)
        for question in asked:
            rows[split].append(
                {
                    "img_id": number,
                    "img_name": name,
                    "question": question.text,
                    "answer": question.answer.capitalize() if question.closed else question.answer,
                    "q_lang": "en",
                    "location": study.organ.capitalize(),
                    "modality": study.modality,
                    "answer_type": "CLOSED" if question.closed else "OPEN",
                    "base_type": "vqa",
                    "content_type": _SLAKE_TYPES.get(question.type, question.type.capitalize()),
                    "triple": "['vhead', '_', '_']",
                    "qid": qid,
                }
            )
            qid += 1
    for split, file in _SLAKE_FILES.items():
        _write_json(root / file, rows[split])


def write_roco(splits: Splits, root: Path, *, seed: int = 0) -> None:
    """Writes `{train,validation,test}/radiology/{captions.txt,images/}`.

    Args:
        splits: Studies of "train", "validation" and "test".
        root: An existing folder.
        seed: Of the choice of wordings.

    Raises:
        UserError: A split is missing or unknown.
    """
    _check_names(splits, tuple(_SLAKE_FILES))
    rng = np.random.default_rng(seed)
    number = 0
    for split, studies in splits.items():
        folder = root / split / "radiology"
        (folder / "images").mkdir(parents=True)
        lines = []
        for study in studies:
            number += 1
            name = f"ROCO_{number:05d}"
            _save(study, folder / "images" / f"{name}.jpg")
            lines.append(f"{name}\t{caption(study, rng)}\n")
        (folder / "captions.txt").write_text("".join(lines), encoding="utf-8")


def write_melinda(splits: Splits, root: Path, *, seed: int = 0) -> None:
    """Writes `melinda_images/`, `train.csv`, `dev.csv` and `test.csv`.

    The captions do not name the imaging technique: `i_meth` is in the image, `p_meth` in both.

    Args:
        splits: Studies of "train", "validation" and "test".
        root: An existing folder.
        seed: Of the choice of wordings.

    Raises:
        UserError: A split is missing or unknown.
    """
    _check_names(splits, tuple(_MELINDA_FILES))
    rng = np.random.default_rng(seed)
    (root / "melinda_images").mkdir()
    for split, file in _MELINDA_FILES.items():
        with (root / file).open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(_MELINDA_COLUMNS)
            for place, study in enumerate(splits[split]):
                name = f"phantom_{split}_{place:05d}.jpg"
                _save(study, root / "melinda_images" / name)
                writer.writerow((name, caption(study, rng, name_modality=False), *study.methods))


def _check_names(splits: Splits, expected: tuple[str, ...]) -> None:
    if set(splits) != set(expected):
        raise UserError(f"splits must be {', '.join(expected)}, got {', '.join(splits) or 'none'}")


def _asked(splits: Splits, questions: int, seed: int) -> Iterator[tuple[str, int, Study, list[Question]]]:
    """Split, place in the split, study and its questions, split after split; each split is balanced alone."""
    for stream, (split, studies) in enumerate(splits.items()):
        asked = ask(studies, questions, np.random.default_rng([seed, stream]))
        for place, study in enumerate(studies):
            yield split, place, study, asked[place]


def _save(study: Study, path: Path) -> None:
    Image.fromarray(render(study)).save(path, quality=90)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
