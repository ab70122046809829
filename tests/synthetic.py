"""Small random batches, settings and data for the tests of the core: nothing on disk, nothing of the data modules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

from umd.batch import VQABatch
from umd.encoders import EncoderConfig
from umd.modules.objectives import ReconstructionConfig
from umd.optim import OptimizerConfig

PADDING, START, END, MASK = range(4)
VOCABULARY = 40
ANSWERS = ("yes", "no", "left lung", "two")

IMAGE_SIZE = 32
PATCH_SIZE = 8

ENCODER = EncoderConfig(
    image_size=IMAGE_SIZE,
    vision="tiny_vit",
    vision_options={"width": 16, "depth": 1, "heads": 2, "patch_size": PATCH_SIZE},
    text="tiny_bert",
    text_options={"width": 16, "layers": 1, "heads": 2, "vocab_size": VOCABULARY},
    fusion_width=24,
    fusion_layers=1,
    fusion_heads=2,
    fusion_dropout=0.0,
)
RECONSTRUCTION = ReconstructionConfig(
    text_mask_ratio=0.3, teacher_decay=0.7, decoder_width=16, decoder_layers=1, decoder_heads=2
)
M3AE = replace(RECONSTRUCTION, preset="m3ae")
OPTIMIZER = OptimizerConfig(lr=1e-3, fusion_multiplier=1.0, head_multiplier=1.0, warmup_ratio=0.0)


def answer_tokens(answer: str) -> list[int]:
    """Two tokens an answer, different for each of `ANSWERS`, between start and end."""
    number = ANSWERS.index(answer)
    return [START, MASK + 1 + number, MASK + 2 + number % 2, END]


def vqa_batch(size: int = 4, *, seed: int = 0, image_size: int = IMAGE_SIZE, length: int = 9) -> VQABatch:
    """Random pairs whose texts have different lengths, and words of one or two tokens."""
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((size, length), PADDING)
    words = torch.full((size, length), -1)
    for row in range(size):
        real = draw.randint(3, length - 2) if row else length - 2
        ids[row, 0], ids[row, real + 1] = START, END
        ids[row, 1 : real + 1] = torch.randint(MASK + 1, VOCABULARY, (real,), generator=generator)
        starts = torch.tensor([0, *(draw.randint(0, 1) for _ in range(real - 1))])
        words[row, 1 : real + 1] = starts.cumsum(0)
    answers = tuple(ANSWERS[row % len(ANSWERS)] for row in range(size))
    return VQABatch(
        image=torch.randint(0, 256, (size, 3, image_size, image_size), generator=generator, dtype=torch.uint8),
        input_ids=ids,
        attention_mask=ids != PADDING,
        special_tokens_mask=words < 0,
        word_ids=words,
        mask_token_id=MASK,
        index=torch.arange(size),
        sample_ids=tuple(f"question{row}" for row in range(size)),
        texts=tuple(f"text {row}" for row in range(size)),
        image_names=tuple(f"{row}.png" for row in range(size)),
        answers=answers,
        accepted=tuple((answer,) for answer in answers),
        published_answers=answers,
        answer_input_ids=torch.tensor([answer_tokens(answer) for answer in answers]),
        answer_attention_mask=torch.ones(size, 4, dtype=torch.bool),
        closed=torch.tensor([answer in ("yes", "no") for answer in answers]),
        closed_by_answer=(False,) * size,
        has_twin=torch.zeros(size, dtype=torch.bool),
        question_types=("",) * size,
    )


class Batches(LightningDataModule):
    """The same ready-made batches for every split, in the same order in every epoch."""

    answers = ANSWERS

    def __init__(self, batches: Sequence[VQABatch], tokenizer_size: int = VOCABULARY) -> None:
        super().__init__()
        self.batches = list(batches)
        self.tokenizer_size = tokenizer_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type] # a list does for a Dataset

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def quiet_trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:  # noqa: ANN401 - Trainer's own
    """A trainer, on the CPU unless told, that writes and shows nothing of its own accord, and does not validate."""
    return Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "log_every_n_steps": 1,
            **settings,
        },
    )
