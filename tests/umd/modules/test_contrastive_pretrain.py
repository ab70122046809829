"""GGP's pre-training against slow plain computations: each pair alone, in loops, without padding, queue or ranks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional

from callbacks import WeightPerturbation
from tests.synthetic import OPTIMIZER, VOCABULARY, Batches, quiet_trainer, vqa_batch
from umd.batch import ImageTextBatch, VQABatch
from umd.encoders.ggp import GGPConfig, GGPEncoder, build_bert, cross_attention_layers
from umd.losses.contrastive import PairPool, PairQueue, contrastive_loss, hard_negatives, identities
from umd.masking import IGNORED, mask_tokens
from umd.modules import ContrastivePretrain
from umd.modules.contrastive_pretrain import ContrastiveConfig

ENCODER = GGPConfig(
    image_size=32,
    vision="tiny_vit",
    vision_options={"width": 16, "depth": 1, "heads": 2, "patch_size": 8},
    text="tiny_bert",
    text_options={"width": 24, "heads": 2, "vocab_size": VOCABULARY},
    text_layers=1,
    fusion_layers=1,
)
CONTRASTIVE = ContrastiveConfig(projection_width=8, queue_size=7, momentum=0.9, text_mask_ratio=0.3)


def stage(**changes: Any) -> ContrastivePretrain:  # noqa: ANN401 - any of the settings
    """A module whose weights are large enough for its outputs to differ clearly."""
    torch.manual_seed(0)
    module = ContrastivePretrain(ENCODER, OPTIMIZER, replace(CONTRASTIVE, **changes))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return module


def different_copies(module: ContrastivePretrain) -> ContrastivePretrain:
    """Momentum encoders that are not just the trained ones."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.momentum.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return module


def units(rows: int, width: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


# Pure functions and the queue


Names = Sequence[tuple[str, str]]
"""An image and a caption a pair."""


def pool_of(images: Tensor, texts: Tensor, names: Names) -> PairPool:
    return PairPool(images, texts, *(identities(part) for part in zip(*names, strict=True)))


def named(batch: VQABatch, names: Names) -> VQABatch:
    images, texts = zip(*names, strict=True)
    return replace(batch, image_names=images, texts=texts)


def share(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[0] == other[0] or one[1] == other[1]


def slow_contrast(
    images: Tensor,
    texts: Tensor,
    image_pool: Tensor,
    text_pool: Tensor,
    names: Names,
    temperature: float,
    weight: float,
) -> float:
    """L_ITC by its definition, one number at a time; pair i of the batch stands at place i of the pool."""
    total = 0.0
    for queries, own_pool, pool in ((images, image_pool, text_pool), (texts, text_pool, image_pool)):
        for place, query in enumerate(queries):
            found = [math.exp(float(query @ key) / temperature) for key in pool]
            likely = [math.exp(float(own_pool[place] @ key) / temperature) for key in pool]
            right = [share(names[place], name) for name in names]
            for key in range(len(pool)):
                target = (1 - weight) * right[key] / sum(right) + weight * likely[key] / sum(likely)
                total -= target * math.log(found[key] / sum(found))
    return total / (2 * len(images))


# The first pair has an earlier copy of itself in the pool, the second an image with another caption, the third
# another image with the same caption.
POOL = [("a", "1"), ("b", "2"), ("c", "3"), ("a", "1"), ("d", "4"), ("b", "5"), ("e", "3"), ("f", "6")]
STRANGERS = [(str(place), str(place)) for place in range(8)]


@pytest.mark.parametrize("names", [POOL, STRANGERS])
@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_contrastive_loss_by_its_definition(weight: float, names: Names) -> None:
    images, texts, image_pool, text_pool = (units(rows, 4, seed) for seed, rows in enumerate((3, 3, 8, 8)))
    pool = pool_of(image_pool, text_pool, names)
    loss = contrastive_loss(images, texts, pool, torch.arange(3), torch.tensor(0.3), weight)
    wanted = slow_contrast(images, texts, image_pool, text_pool, names, 0.3, weight)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_identities_are_equal_where_names_are_in_every_process() -> None:
    found = identities(["a.png", "", "b.png", "a.png"])
    assert (found[0] == found[3]).item()
    assert len(set(found.tolist())) == 3
    code = "from umd.losses.contrastive import identities; print(identities(['a.png', 'b.png']).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(other) == found[[0, 2]].tolist()


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3, 3], [5, 1, 9, 2], [16, 3], [7, 7]])
def test_the_queue_holds_the_latest_pairs_however_batches_fall(sizes: list[int]) -> None:
    queue, plain, number = PairQueue(7, 2), deque[float](maxlen=7), 0.0
    for size in sizes:
        numbers = [number + row for row in range(size)]
        number += size
        image = torch.tensor(numbers)[:, None].expand(-1, 2)
        identity = image[:, 0].long()
        queue.enqueue(PairPool(image, -image, identity, 2 * identity))
        plain.extend(numbers)
        held = queue.pairs()
        assert sorted(held.image[:, 0].tolist()) == list(plain)
        assert torch.equal(held.text, -held.image)  # a pair stays together
        assert torch.equal(held.image_identity, held.image[:, 0].long())
        assert torch.equal(held.text_identity, 2 * held.image_identity)


def test_an_empty_or_absent_queue_adds_no_negatives() -> None:
    assert len(PairQueue(7, 2).pairs()) == 0
    absent = PairQueue(0, 2)
    absent.enqueue(pool_of(torch.ones(3, 2), torch.ones(3, 2), STRANGERS[:3]))
    assert len(absent.pairs()) == 0


def test_the_queue_knows_how_many_pairs_it_holds_without_asking_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """But where a checkpoint was read, or a step undone."""
    read: list[int] = []
    number = Tensor.__int__

    def counted(tensor: Tensor) -> int:
        read.append(number(tensor))
        return read[-1]

    monkeypatch.setattr(Tensor, "__int__", counted)
    queue, pairs = PairQueue(7, 2), pool_of(torch.ones(2, 2), torch.ones(2, 2), STRANGERS[:2])
    for held in (2, 4, 6, 7, 7):
        queue.enqueue(pairs)
        assert len(queue.pairs()) == held
    assert read == [0]
    undone = [buffer.clone() for buffer in queue.buffers()]
    queue.load_state_dict(PairQueue(7, 2).state_dict())
    assert len(queue.pairs()) == 0
    for buffer, earlier in zip(queue.buffers(), undone, strict=True):
        buffer.copy_(earlier)
    assert len(queue.pairs()) == 7
    assert read == [0, 0, 10]


def test_a_queue_that_does_not_know_its_pairs_starts_empty_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    queue = PairQueue(7, 2)
    queue.enqueue(pool_of(torch.ones(3, 2), torch.ones(3, 2), STRANGERS[:3]))
    now = queue.state_dict()
    before = {name: value for name, value in now.items() if not name.endswith("_identity")}
    again = PairQueue(7, 2)
    again.load_state_dict(now)
    assert len(again.pairs()) == 3
    assert not caplog.records
    again.load_state_dict(before)
    assert len(again.pairs()) == 0
    assert "holds 3 pairs and does not say which images and captions" in caplog.text


def test_hard_negatives_follow_the_similarity_and_are_never_the_own_pair() -> None:
    similarity = torch.tensor([5.0, 0.0, math.log(3), math.log(4)])
    equal = torch.tensor([True, False, False, False])
    drawn = hard_negatives(similarity.expand(20000, -1), equal.expand(20000, -1), torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / 20000
    assert torch.allclose(shares, torch.tensor([0, 1 / 8, 3 / 8, 4 / 8]), atol=0.015)
    assert shares[0] == 0


# The encoder


def test_both_halves_keep_berts_weights() -> None:
    torch.manual_seed(0)
    bert = build_bert("tiny_bert", None, {"width": 24, "heads": 2, "vocab_size": VOCABULARY}, 3)
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.normal_(std=0.3)  # LayerNorms too, which are ones and zeros when new
    tokens, mask = torch.randn(2, 5, 24), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    for layer, original in zip(cross_attention_layers(bert, 1), list(bert.model.encoder.layer)[1:], strict=True):
        attended = original.attention(tokens, mask[:, None, None, :])[0]  # type: ignore[operator]
        assert torch.allclose(layer.self_attention(tokens, tokens, mask), attended, atol=1e-5)  # type: ignore[operator]
        fed = original.output(original.intermediate(tokens), tokens)  # type: ignore[operator]
        hidden = layer.contract(functional.gelu(layer.expand(tokens)))  # type: ignore[operator]
        assert torch.allclose(layer.norm(hidden + tokens), fed, atol=1e-5)  # type: ignore[operator]
    encoder = GGPEncoder(replace(ENCODER, text_layers=2, fusion_layers=3))
    assert (len(encoder.text.model.encoder.layer), len(encoder.fusion)) == (2, 3)


# One step


def alone(batch: ImageTextBatch, image: int, text: int) -> tuple[Tensor, Tensor, Tensor]:
    """An image and a text of a batch as a batch of one without padding: image, ids, mask."""
    length = int(batch.attention_mask[text].sum())
    ids = batch.input_ids[text : text + 1, :length]
    return batch.image[image : image + 1], ids, torch.ones_like(ids, dtype=torch.bool)


def features(module: ContrastivePretrain, batch: ImageTextBatch, averaged: bool) -> tuple[Tensor, Tensor]:
    """(B, d) features of images and texts, each encoded alone, by the trained or by the momentum encoders."""
    parts: Any = module.momentum if averaged else None
    vision, text, to_image, to_text = (
        (parts["vision"], parts["text"], parts["image_contrast"], parts["text_contrast"])
        if averaged
        else (module.encoder.vision, module.encoder.text, module.image_contrast, module.text_contrast)
    )
    images, texts = [], []
    for row in range(len(batch)):
        image, ids, mask = alone(batch, row, row)
        images.append(to_image(vision(vision.normalize(image))[0, 0]))
        texts.append(to_text(text(ids, mask)[0, 0]))
    return tuple(torch.stack([v / v.norm() for v in group]) for group in (images, texts))  # type: ignore[return-value]


def slow_matching(module: ContrastivePretrain, batch: VQABatch, pairs: Sequence[tuple[int, int, int]]) -> float:
    """L_ITM over triples of an image's place, a text's place, and whether they belong together."""
    total = 0.0
    for image_place, text_place, label in pairs:
        image, ids, mask = alone(batch, image_place, text_place)
        joint = module.encoder(module.encoder.vision.normalize(image), ids, mask)[0, 0]
        total -= float(module.matching_head(joint).log_softmax(0)[label])
    return total / len(pairs)


@torch.no_grad()
def test_a_pair_whose_batch_shares_its_image_or_caption_is_matched_with_itself_alone(tmp_path: Path) -> None:
    module = different_copies(stage())
    module.trainer = quiet_trainer(tmp_path)
    # The second pair shares its image with the first and its caption with the third.
    batch = named(vqa_batch(3), [("a", "1"), ("a", "2"), ("b", "2")])
    encoded = module.encode(batch)
    pairs = [(0, 0, 1), (1, 1, 1), (2, 2, 1), (2, 0, 0), (0, 2, 0), (0, 2, 0), (2, 0, 0)]
    assert float(module.matching(batch, encoded, 0)) == pytest.approx(slow_matching(module, batch, pairs), rel=1e-4)


@torch.no_grad()
def test_the_terms_of_a_training_step_pair_by_pair(tmp_path: Path) -> None:
    module = different_copies(stage())
    # Of these four, the first two show one image and the last two share a caption; the queue holds an earlier copy
    # of the first one and a pair with the last one's image.
    names = [("a", "1"), ("a", "2"), ("b", "3"), ("c", "3")]
    earlier_names = [("a", "1"), ("d", "4"), ("c", "5")]
    batch, earlier = named(vqa_batch(4), names), named(vqa_batch(3, seed=1), earlier_names)
    module.trainer = quiet_trainer(tmp_path)
    module.queue.enqueue(pool_of(*features(module, earlier, averaged=True), earlier_names))
    module.train()
    encoded = module.encode(batch)
    terms = module.terms(batch, encoded, 0)

    pools = zip(features(module, batch, averaged=True), features(module, earlier, averaged=True), strict=True)
    image_pool, text_pool = (torch.cat(pool) for pool in pools)
    images, texts = features(module, batch, averaged=False)
    itc = slow_contrast(
        images,
        texts,
        image_pool,
        text_pool,
        [*names, *earlier_names],
        CONTRASTIVE.temperature,
        CONTRASTIVE.distillation,
    )
    assert float(terms.itc) == pytest.approx(itc, rel=1e-4)

    other_image, other_text = (places.tolist() for places in module.negatives(encoded, 0))
    rows = range(len(batch))
    for others in (other_image, other_text):
        assert not any(share(names[row], names[others[row]]) for row in rows)
    pairs = [(row, row, 1) for row in rows]
    pairs += [(other_image[row], row, 0) for row in rows] + [(row, other_text[row], 0) for row in rows]
    itm = slow_matching(module, batch, pairs)
    assert float(terms.itm) == pytest.approx(itm, rel=1e-4)

    masked = mask_tokens(
        batch.input_ids,
        batch.special_tokens_mask,
        mask_token_id=batch.mask_token_id,
        vocab_size=VOCABULARY,
        ratio=CONTRASTIVE.text_mask_ratio,
        generator=module.generator(CONTRASTIVE.mask_seed, 1, 0),
        always_mask=True,
    )
    changed, mlm = replace(batch, input_ids=masked.input_ids), []
    for row in rows:
        image, ids, mask = alone(changed, row, row)
        joint = module.encoder(module.encoder.vision.normalize(image), ids, mask)[0]
        for place, label in enumerate(masked.labels[row].tolist()):
            if label != IGNORED:
                mlm.append(-float(module.text_decoder(joint[place]).log_softmax(0)[label]))
    assert float(terms.mlm) == pytest.approx(sum(mlm) / len(mlm), rel=1e-4)


class Recorder(Callback):
    """Gradients before each optimizer step, and the averaged weights on both sides of it."""

    def __init__(self) -> None:
        self.without: list[str] = []
        self.steps: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self.latest: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ContrastivePretrain)
        self.latest = {name: value.clone() for name, value in pl_module.momentum.named_parameters()}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        self.without += [name for name, p in pl_module.named_parameters() if p.requires_grad and p.grad is None]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        assert isinstance(pl_module, ContrastivePretrain)
        before = self.latest
        self.latest = {name: value.clone() for name, value in pl_module.momentum.named_parameters()}
        self.steps.append((before, self.latest))


def test_training_moves_the_copies_once_a_step_and_queues_training_pairs_only(tmp_path: Path) -> None:
    batches = [vqa_batch(seed=seed) for seed in range(4)]
    module, recorder = stage(), Recorder()
    trainer = quiet_trainer(
        tmp_path, recorder, WeightPerturbation(), max_epochs=1, accumulate_grad_batches=2, limit_val_batches=1
    )
    trainer.fit(module, datamodule=Batches(batches))
    assert recorder.without == []
    assert all(p.grad is None for p in module.momentum.parameters())
    moved = [any(not torch.equal(old[name], new[name]) for name in old) for old, new in recorder.steps]
    assert moved == [False, True, False, True]
    student = {f"{part}.{name}": p for part in ("vision", "text") for name, p in
               getattr(module.encoder, part).named_parameters()}  # fmt: skip
    student |= {f"{part}.{name}": p for part in ("image_contrast", "text_contrast") for name, p in
                getattr(module, part).named_parameters()}  # fmt: skip
    old, new = recorder.steps[-1]
    assert student.keys() == new.keys()
    for name, value in new.items():
        assert torch.allclose(value, 0.9 * old[name] + 0.1 * student[name], atol=1e-6), name
    assert module.queue.enqueued == 16

    path = tmp_path / "stage.ckpt"
    trainer.save_checkpoint(path)
    loaded = ContrastivePretrain.load_from_checkpoint(path, weights_only=True)
    for name, held in module.queue.named_buffers():
        assert torch.equal(loaded.queue.get_buffer(name), held), name
    assert loaded.contrastive == CONTRASTIVE
    # What was queued last came from the copies as they were then, before the step that followed.
    loaded.momentum.load_state_dict(old, strict=False)
    with torch.no_grad():
        queued = features(loaded.eval(), batches[-1], averaged=True)
    for held, wanted in zip((module.queue.image, module.queue.text), queued, strict=True):
        assert torch.allclose(held[[5, 6, 0, 1]], wanted, atol=1e-5)

    # A further pre-training starts its copies from what it takes over.
    torch.manual_seed(3)
    again = ContrastivePretrain(ENCODER, OPTIMIZER, CONTRASTIVE, init_from=str(path))
    quiet_trainer(tmp_path, max_steps=1, limit_train_batches=0).fit(again, datamodule=Batches(batches))
    taken = again.momentum["vision"].state_dict()
    assert all(torch.equal(taken[name], p) for name, p in module.encoder.vision.state_dict().items())


def test_a_pair_alone_has_no_negative_to_be_told_from(tmp_path: Path) -> None:
    module = stage()
    trainer = quiet_trainer(tmp_path, limit_val_batches=1)
    result = trainer.validate(module, datamodule=Batches([vqa_batch(1)]), verbose=False)[0]
    assert result["validation/itc"] == 0
    assert math.isfinite(result["validation/loss"])


# Ranks

OTHERS = torch.tensor([3, 0, 1, 2]), torch.tensor([2, 3, 0, 1])


def two_steps(halves: list[VQABatch]) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of two batches, the first one queued before the second, and the gradient of the second one."""
    module, losses = different_copies(stage(text_mask_ratio=0.0)), []
    module.train()
    # The draw belongs to each rank, so here all are told what to draw.
    module.negatives = lambda encoded, *_: tuple(o[encoded.own] for o in OTHERS)  # type: ignore[method-assign]
    for batch in halves:
        module.zero_grad()
        encoded = module.encode(batch)
        loss = module.contrast(encoded) + module.matching(batch, encoded)
        module.queue.enqueue(encoded.pool)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
    assert module.queue.enqueued == 8
    return losses, {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def joined() -> list[VQABatch]:
    """Pairs of both ranks share an image or a caption, within a batch and with the queued one."""
    names = [
        [("a", "1"), ("b", "2"), ("a", "3"), ("c", "2")],
        [("d", "4"), ("a", "1"), ("e", "4"), ("c", "5")],
    ]
    return [named(vqa_batch(4, seed=seed), names[seed]) for seed in (0, 1)]


def part(batch: VQABatch, rows: slice) -> VQABatch:
    """Some rows of a batch, padded to their own longest text, as a rank's data module would."""
    length = int(batch.attention_mask[rows].sum(1).max())
    return replace(
        batch,
        image=batch.image[rows],
        input_ids=batch.input_ids[rows, :length],
        attention_mask=batch.attention_mask[rows, :length],
        image_names=batch.image_names[rows],
        texts=batch.texts[rows],
    )


def on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/ranks", rank=rank, world_size=2)
    rows = slice(2 * rank, 2 * rank + 2)
    torch.save(two_steps([part(batch, rows) for batch in joined()]), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_compute_what_one_process_computes_on_the_joined_batch(tmp_path: Path) -> None:
    assert len({part(batch, slice(a, a + 2)).input_ids.shape for batch in joined() for a in (0, 2)}) > 1
    losses, gradients = two_steps(joined())
    multiprocessing.spawn(on_rank, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for step in range(2):
        assert sum(result[0][step] for result in results) / 2 == pytest.approx(losses[step], rel=1e-5)
    assert {"temperature", "matching_head.weight"} <= gradients.keys()
    for name, wanted in gradients.items():
        found = (results[0][1][name] + results[1][1][name]) / 2
        assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-4), name
