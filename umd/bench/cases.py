"""What is timed: one training of each stage, as the command line would start it."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Scale = Literal["embedded", "base"]


@dataclass(frozen=True)
class Shape:
    """The reference's size, as in `umd.bench.reference.PlainStep`; its step costs about as much as a stage's."""

    width: int
    layers: int
    heads: int
    tokens: int
    samples: int


REFERENCES: Mapping[Scale, Shape] = {
    "embedded": Shape(width=64, layers=4, heads=4, tokens=64, samples=32),
    "base": Shape(width=768, layers=12, heads=12, tokens=256, samples=2),
}


@dataclass(frozen=True)
class Case:
    """One stage's training.

    Attributes:
        name: what the table calls it.
        configs: of those that come with umd.
        options: behind them, as typed.
        scale: whose reference is timed beside it.
        test: whether the training ends with its test.
    """

    name: str
    configs: tuple[str, ...]
    options: tuple[str, ...] = ()
    scale: Scale = "embedded"
    test: bool = False

    def arguments(self, folder: Path, steps: int, costs: Path, *, with_reference: bool) -> list[str]:
        """The command line: so many steps into `folder`, with what they cost in the file `costs`."""
        shape = REFERENCES[self.scale]
        configs = [word for name in self.configs for word in ("--config", name)]
        limits = f"""--runs {folder} --name {self.name} --trainer.max_steps {steps} --trainer.limit_val_batches 0
            --test_after_fit {str(self.test).lower()} --trainer.enable_progress_bar false
            --trainer.profiler umd.bench.profiler.CostProfiler --trainer.profiler.path {costs}
            --trainer.callbacks+=umd.bench.reference.Reference
            --trainer.callbacks.width {shape.width} --trainer.callbacks.layers {shape.layers * with_reference}
            --trainer.callbacks.heads {shape.heads} --trainer.callbacks.tokens {shape.tokens}
            --trainer.callbacks.samples {shape.samples}"""
        return ["fit", *configs, *self.options, *limits.split()]


def embedded() -> list[Case]:
    """Each stage as its config has it: tiny encoders on phantom data."""
    stages = "pretrain", "calibrate", "vqa", "retrieval", "classification", "contrastive_pretrain", "vqa_generation"
    return [Case(stage, (f"{stage}.yaml",)) for stage in stages]


def base(text_weights: Path) -> list[Case]:
    """Both papers' models at their own size and images, float32, few samples; random weights, phantom data.

    Args:
        text_weights: folder of a BERT-base with a tokenizer, which stands for the papers' text encoders here.
    """
    ours = f"""--trainer.precision 32-true --trainer.devices 1 --trainer.accumulate_grad_batches 1
        --data.num_workers 0 --model.encoder.vision_weights null
        --model.encoder.text bert_base --model.encoder.text_weights {text_weights}"""
    umd, ggp = "paper/encoders.yaml", "paper/ggp_encoders.yaml"

    def case(stage: str, encoders: str, recipe: str, options: str, name: str | None = None) -> Case:
        configs = (f"{stage}.yaml", encoders, f"paper/{recipe}.yaml")
        return Case(name or stage, configs, (*ours.split(), *options.split()), "base")

    return [
        case("pretrain", umd, "pretrain", "--data.batch_size 4 --trainer.val_check_interval 1000000"),
        case("vqa", umd, "vqa/vqa_rad", "--data.batch_size 4"),
        case("vqa", umd, "vqa/vqa_rad", "--data.batch_size 8", "vqa_of_8"),
        case("retrieval", umd, "retrieval/roco", "--data.batch_size 1 --data.negatives 3"),
        case("contrastive_pretrain", ggp, "contrastive_pretrain", "--data.batch_size 4"),
        case("vqa_generation", ggp, "vqa_generation/vqa_rad", "--data.batch_size 4 --model.decoder.weights null"),
    ]


def write_text_weights(folder: Path) -> None:
    """A BERT-base of random weights with a small tokenizer, as `save_pretrained` leaves them.

    The published one is on the hub, which a machine that measures may not reach.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
    letters = string.ascii_letters + string.digits + string.punctuation
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    pieces = [*special.values(), *letters, *(f"##{letter}" for letter in letters)]
    words = models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_max_length=512, **special
    ).save_pretrained(folder)
