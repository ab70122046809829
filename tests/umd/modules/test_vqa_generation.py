"""Written answers: likelihoods token by token, ranking and writing against plain loops, and a set learnt by heart."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks import ModalityCoordination, PredictionWriter, WeightPerturbation
from datamodules import VQARAD
from tests.synthetic import ANSWERS, END, OPTIMIZER, START, VOCABULARY, Batches, answer_tokens, quiet_trainer, vqa_batch
from umd.batch import VQABatch
from umd.encoders.ggp import GGPConfig
from umd.heads.answer_decoder import AnswerDecoder
from umd.modules import ContrastivePretrain, VQAGenerator
from umd.modules.contrastive_pretrain import ContrastiveConfig
from umd.modules.vqa_generation import AnswerDecoderConfig, States

ENCODER = GGPConfig(
    image_size=32,
    vision="tiny_vit",
    vision_options={"width": 32, "depth": 2, "heads": 2, "patch_size": 8},
    text="tiny_bert",
    text_options={"width": 32, "heads": 2, "vocab_size": VOCABULARY},
    text_layers=1,
    fusion_layers=1,
)
DECODER = AnswerDecoderConfig(layers=1, shortlist=3, max_length=6)
# Of different lengths; three share their first token.
CANDIDATES = {
    "yes": [START, 5, END],
    "no": [START, 6, END],
    "left lung": [START, 7, 8, 9, END],
    "left": [START, 7, END],
    "two": [START, 10, 11, END],
    "left side": [START, 7, 12, END],
}


def stage(**settings: Any) -> VQAGenerator:  # noqa: ANN401 - any of the settings
    """A module whose weights are large enough for its answers to differ clearly."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"encoder": ENCODER, "optimizer": OPTIMIZER, "decoder": DECODER, "answers": CANDIDATES}
    module = VQAGenerator(**{**given, **settings})
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return module.eval()


def batch_of(size: int = 6, seed: int = 0) -> VQABatch:
    """Questions whose answers are the candidates, padded to the longest one."""
    answers = tuple(list(CANDIDATES)[row % len(CANDIDATES)] for row in range(size))
    ids = torch.zeros(size, 6, dtype=torch.int64)
    for row, answer in enumerate(answers):
        ids[row, : len(CANDIDATES[answer])] = torch.tensor(CANDIDATES[answer])
    # Token 0 pads.
    accepted = tuple((answer,) for answer in answers)
    batch = replace(vqa_batch(size, seed=seed), answers=answers, accepted=accepted)
    return replace(batch, answer_input_ids=ids, answer_attention_mask=ids > 0)


def one(states: States, row: int) -> States:
    """The states of one question, without padding."""
    length = int(states.mask[row].sum())
    return States(states.joint[row : row + 1, :length], states.mask[row : row + 1, :length])


def next_token(decoder: AnswerDecoder, states: States, prefix: Sequence[int]) -> Tensor:
    """log p of every token after a prefix, for one question: the prefix is read anew, alone."""
    features = decoder(torch.tensor([list(prefix)]), states.joint, states.mask)
    logits: Tensor = decoder.predict(features[0, -1])
    return logits.log_softmax(0)


def slow_likelihood(decoder: AnswerDecoder, states: States, ids: Sequence[int]) -> float:
    return sum(float(next_token(decoder, states, ids[:place])[ids[place]]) for place in range(1, len(ids)))


# The decoder


@torch.no_grad()
def test_the_likelihood_of_an_answer_is_the_product_over_its_tokens() -> None:
    module, batch = stage(), batch_of()
    states = module(batch)
    found = module.log_likelihood(batch, states)
    wanted = [
        slow_likelihood(module.decoder, one(states, row), CANDIDATES[answer])
        for row, answer in enumerate(batch.answers)
    ]
    assert torch.allclose(found, torch.tensor(wanted), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("shortlist", [1, 3, 128])
def test_ranking_sorts_those_with_the_likeliest_first_tokens(shortlist: int) -> None:
    module, batch = stage(decoder=replace(DECODER, shortlist=shortlist)), batch_of(12)
    states = module(batch)
    numbers, likelihoods = module.rank(states)
    for row in range(len(batch)):
        question = one(states, row)
        first = next_token(module.decoder, question, [START])
        names = sorted(CANDIDATES, key=lambda name: -float(first[CANDIDATES[name][1]]))
        # Where candidates share their first token, which of them are among the first is left open.
        least = float(first[CANDIDATES[names[min(shortlist, len(names)) - 1]][1]])
        open_ended = [name for name in names if float(first[CANDIDATES[name][1]]) >= least]
        scores = {name: slow_likelihood(module.decoder, question, CANDIDATES[name]) for name in open_ended}
        ranked = [module.answers[number] for number in numbers[row].tolist()]
        assert len(ranked) == len(set(ranked)) == min(shortlist, len(names))
        assert likelihoods[row].tolist() == pytest.approx([scores[name] for name in ranked], abs=1e-4)
        assert likelihoods[row].tolist() == sorted(likelihoods[row].tolist(), reverse=True)
        if len(open_ended) <= shortlist:
            assert ranked[0] == max(scores, key=scores.__getitem__)


@torch.no_grad()
def test_writing_takes_the_likeliest_token_until_the_end_token() -> None:
    module, batch = stage(), batch_of(12)
    states = module(batch)
    # Make the end token likely enough for some answers to stop early, and not all.
    module.decoder.predict.predict.bias[END] += 2.5
    found = module.decoder.generate(states.joint, states.mask, START, END, max_length=6)
    wanted = []
    for row in range(len(batch)):
        written = [START]
        while len(written) < 6 and END not in written[1:]:
            written.append(int(next_token(module.decoder, one(states, row), written).argmax()))
        wanted.append([token for token in written[1:] if token != END])
    assert found == wanted
    assert len({len(answer) for answer in found}) > 1


# Training


class Reading(Batches):
    """Batches whose answers can be written as tokens and read from them."""

    answers = ANSWERS

    def answer_tokens(self, answers: Sequence[str]) -> list[list[int]]:
        return [answer_tokens(answer) for answer in answers]

    def answer_text(self, token_ids: Sequence[int]) -> str:
        inner = [token for token in token_ids if token not in (START, END)]
        return next((answer for answer in ANSWERS if answer_tokens(answer)[1:-1] == inner), "")


class Steps(Callback):
    """Parameters without a gradient, and contributions, at each optimizer step."""

    def __init__(self) -> None:
        self.without: list[str] = []
        self.contributions: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        assert isinstance(pl_module, VQAGenerator)
        self.without += [name for name, p in pl_module.named_parameters() if p.grad is None]
        self.contributions.append({name: float(c) for name, c in pl_module.modality_contributions().items()})


def likelihood_alone(module: VQAGenerator, batch: VQABatch) -> dict[str, float]:
    """The sum over questions of the true answer's likelihood, the other modality taken from a neighbour."""
    sums = {"language": 0.0, "vision": 0.0}
    image = module.encoder.vision(module.encoder.vision.normalize(batch.image))
    for row in range(len(batch)):
        ids = batch.answer_input_ids[row][batch.answer_attention_mask[row]].tolist()
        other = {0: 1, 1: 0, 2: 3, 3: 2, 4: 3}[row]
        for name, (text_row, image_row) in (("language", (row, other)), ("vision", (other, row))):
            real = batch.attention_mask[text_row]
            mask = torch.ones(1, int(real.sum()), dtype=torch.bool)
            text = module.encoder.text(batch.input_ids[text_row][real][None], mask)
            states = States(module.encoder.fuse(text, mask, image[image_row][None]), mask)
            sums[name] += math.exp(slow_likelihood(module.decoder, states, ids))
    return sums


def test_a_step_reaches_every_parameter_and_adds_up_contributions(tmp_path: Path) -> None:
    module, steps = stage(answers=None), Steps()
    batches = [vqa_batch(5 if seed else 4, seed=seed) for seed in range(4)]
    with torch.no_grad():
        wanted = [likelihood_alone(module, batch) for batch in batches[:2]]
    trainer = quiet_trainer(
        tmp_path, steps, WeightPerturbation(), ModalityCoordination(), max_epochs=1, accumulate_grad_batches=2
    )
    trainer.fit(module, datamodule=Reading(batches))
    assert steps.without == []
    assert len(steps.contributions) == 2
    for name, value in steps.contributions[0].items():
        assert value == pytest.approx(wanted[0][name] + wanted[1][name], rel=1e-3)
    assert module.modality_contributions() == {}


def decided_batch(decides: str, seed: int, size: int = 64) -> VQABatch:
    """Questions with one telling word about images of one colour; answers of three words, of which one matters."""
    generator = torch.Generator().manual_seed(seed)
    words, colours = (torch.randint(8, (size,), generator=generator) for _ in range(2))
    column = torch.ones(size, dtype=torch.int64)
    answer = 20 + (words if decides == "language" else colours)
    corners = torch.cartesian_prod(*[torch.tensor([0, 255], dtype=torch.uint8)] * 3)
    ids = torch.stack([START * column, 10 * column, 12 + words, 11 * column, END * column], dim=1)
    return replace(
        vqa_batch(size),
        image=corners[colours][:, :, None, None].expand(-1, -1, 32, 32),
        input_ids=ids,
        attention_mask=ids > 0,
        answer_input_ids=torch.stack([START * column, 30 * column, answer, 31 * column, END * column], dim=1),
        answer_attention_mask=torch.ones(size, 5, dtype=torch.bool),
    )


@pytest.mark.parametrize("decides", ["language", "vision"])
def test_contributions_tell_which_modality_decides(decides: str) -> None:
    torch.manual_seed(0)
    module = VQAGenerator(encoder=ENCODER, optimizer=OPTIMIZER, decoder=DECODER, answers=CANDIDATES).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for step in range(100):
        batch = decided_batch(decides, step)
        optimizer.zero_grad()
        (-module.log_likelihood(batch, module(batch)).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    batch = decided_batch(decides, 1000)
    with torch.no_grad():
        image = module.encoder.vision(module.encoder.vision.normalize(batch.image))
        text = module.encoder.text(batch.input_ids, batch.attention_mask)
    before = torch.get_rng_state()
    found = module.contributions(batch, image, text)
    assert torch.equal(torch.get_rng_state(), before), "no dropout is drawn"
    assert module.decoder.layers.training
    rho = float(found["language"].sum() / found["vision"].sum())
    assert rho >= 3 if decides == "language" else rho <= 1 / 3


def test_a_question_alone_has_no_contributions() -> None:
    module, batch = stage(), vqa_batch(1)
    image = module.encoder.vision(module.encoder.vision.normalize(batch.image))
    text = module.encoder.text(batch.input_ids, batch.attention_mask)
    assert all(values.tolist() == [0.0] for values in module.contributions(batch, image, text).values())


def test_a_checkpoint_needs_nothing_else(tmp_path: Path) -> None:
    data = Reading([vqa_batch(8, seed=seed) for seed in range(2)])
    module = stage(answers=None, decoder=replace(DECODER, weights=None))
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(module, datamodule=data)
    module.hparams["decoder"]["weights"] = "default"  # as if the training had started from published weights
    trainer.save_checkpoint(tmp_path / "stage.ckpt")
    loaded = VQAGenerator.load_from_checkpoint(tmp_path / "stage.ckpt", weights_only=True).eval()
    assert loaded.answers == ANSWERS
    found, kept = loaded(data.batches[0]), module.eval()(data.batches[0])
    assert torch.equal(found.joint, kept.joint)
    for mine, theirs in zip(loaded.rank(found), module.rank(kept), strict=True):
        assert torch.equal(mine, theirs)
    assert quiet_trainer(tmp_path).test(loaded, datamodule=data, verbose=False)


def test_fine_tuning_starts_from_the_pre_training_at_another_image_size(tmp_path: Path) -> None:
    earlier = ContrastivePretrain(ENCODER, OPTIMIZER, ContrastiveConfig(projection_width=8, queue_size=4))
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(earlier, datamodule=Reading([vqa_batch()]))
    trainer.save_checkpoint(tmp_path / "earlier.ckpt")
    settings = {"encoder": replace(ENCODER, image_size=48), "init_from": str(tmp_path / "earlier.ckpt")}
    module = stage(**settings)
    quiet_trainer(tmp_path, max_steps=1, limit_train_batches=0).fit(
        module, datamodule=Reading([vqa_batch(image_size=48)])
    )
    taken, given = module.encoder.state_dict(), earlier.encoder.state_dict()
    resized = [name for name in given if taken[name].shape != given[name].shape]
    assert len(resized) == 1
    assert all(torch.equal(taken[name], given[name]) for name in given if name not in resized)


def test_candidates_that_are_not_the_tokenizers_are_refused() -> None:
    with pytest.raises(ValueError, match="start and end token"):
        stage(answers={"yes": [START, 5, END], "no": [START, 6]})
    with pytest.raises(ValueError, match="there is none"):
        stage(answers={})


# By heart


class Studies(LightningDataModule):
    """32 questions: eight images of noise, four questions about each, answers that follow from both together."""

    answer_list = ("yes", "no", "left lung", "right lower lobe", "3.4 cm", "2", "pleural effusion", "ct")

    def __init__(self) -> None:
        super().__init__()
        reader = VQARAD("nowhere", text_length=16)
        draw, generator = random.Random(0), torch.Generator().manual_seed(0)
        self.answer_tokens, self.answer_text, self.tokenizer_size = (
            reader.answer_tokens,
            reader.answer_text,
            reader.tokenizer_size,
        )
        asked = ("is it normal?", "where is the lesion?", "how large is the lesion?", "what modality is shown?")
        images = torch.randint(0, 256, (8, 3, 4, 4), generator=generator, dtype=torch.uint8)
        images = images.repeat_interleave(8, 2).repeat_interleave(8, 3)
        self.answers = self.answer_list
        answers = tuple(draw.choice(self.answer_list) for _ in range(32))
        questions, written = (reader.tokenizer(list(texts), padding=True, return_tensors="pt")
                              for texts in (asked * 8, answers))  # fmt: skip
        mask = questions["attention_mask"].bool()
        self.batch = VQABatch(
            image=images.repeat_interleave(4, 0),
            input_ids=questions["input_ids"],
            attention_mask=mask,
            special_tokens_mask=~mask,
            word_ids=torch.zeros_like(questions["input_ids"]),
            mask_token_id=reader.tokenizer.mask_token_id,
            index=torch.arange(32),
            sample_ids=tuple(map(str, range(32))),
            texts=asked * 8,
            image_names=tuple(f"{row // 4}.png" for row in range(32)),
            answers=answers,
            accepted=tuple((answer,) for answer in answers),
            published_answers=answers,
            answer_input_ids=written["input_ids"],
            answer_attention_mask=written["attention_mask"].bool(),
            closed=torch.tensor([answer in ("yes", "no") for answer in answers]),
            closed_by_answer=(False,) * 32,
            has_twin=torch.arange(32) < 5,
            question_types=("",) * 32,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([self.batch], batch_size=None)  # type: ignore[arg-type]

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def test_32_questions_learnt_by_heart_are_answered_by_ranking_and_by_writing(tmp_path: Path) -> None:
    data = Studies()
    torch.manual_seed(0)
    encoder = replace(
        ENCODER,
        vision_options={**ENCODER.vision_options, "depth": 1},
        text_options={**ENCODER.text_options, "vocab_size": data.tokenizer_size},
    )
    module = VQAGenerator(
        encoder, replace(OPTIMIZER, lr=4e-3, warmup_ratio=0.1), replace(DECODER, shortlist=128, max_length=12)
    )
    trainer = quiet_trainer(tmp_path, max_steps=400, limit_val_batches=1, check_val_every_n_epoch=400)
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["validation/overall"] == 100
    writer = PredictionWriter()
    testing = quiet_trainer(tmp_path, writer)
    testing.test(module, datamodule=data, verbose=False)
    assert writer.path is not None
    written = pd.read_csv(writer.path, keep_default_na=False)
    assert written["correct"].tolist() == written["generated_correct"].tolist() == [True] * 32
    assert written["has_twin"].tolist() == [True] * 5 + [False] * 27
    assert written["closed"].tolist() == [answer in ("yes", "no") for answer in data.batch.answers]
    rows = {row["group"]: row for row in module.test_report()["rows"]}
    for marked in ("", ", generated"):
        assert rows[f"overall{marked}"]["accuracy"] == 100
        assert rows[f"overall{marked}"]["questions"] == 32
        assert rows[f"twin-free{marked}"]["questions"] == 27
        assert rows[f"open{marked}"]["questions"] + rows[f"closed{marked}"]["questions"] == 32
    predicted: Any = trainer.predict(module, datamodule=data)
    assert [row["generated_answer"] for row in predicted[0]] == list(data.batch.answers)
    assert [row["answer"] for row in predicted[0]] == list(data.batch.answers)


def test_an_answer_survives_its_tokens() -> None:
    data = VQARAD("nowhere", text_length=16)
    for answer in ("yes", "3.4 cm", "on patient's left", "5%", "1.5 x 1.8 cm", "left lower lobe pneumonia"):
        (ids,) = data.answer_tokens([answer])
        assert data.answer_text(ids) == answer
