"""Batches, order, tokenizer state: on a tiny data set of the test's own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import VQARAD
from datamodules.collate import tokenize
from datamodules.images import ImageError
from datamodules.problems import Problems
from datamodules.questions import with_unique_ids
from datamodules.tokenization import build_tokenizer, tokenizer_from_state, tokenizer_state
from tests.datamodules.samples import row, write_vqa
from umd.batch import VQABatch
from umd.files import UserError


def test_batch_shapes_and_masks(tmp_path: Path) -> None:
    data = VQARAD(str(write_vqa(tmp_path / "data")), image_size=16, batch_size=4, text_length=16)
    batch: VQABatch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 3, 16, 16) and batch.image.dtype == torch.uint8
    assert batch.input_ids.shape[1] % 8 == 0 and batch.input_ids.dtype == torch.int64
    tokenizer = data.tokenizer
    lengths = batch.attention_mask.sum(1)
    for number, length in enumerate(lengths.tolist()):
        ids = batch.input_ids[number].tolist()
        assert (ids[0], ids[length - 1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert set(ids[length:]) <= {tokenizer.pad_token_id}
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ?", "?") == batch.texts[number]
        special = batch.special_tokens_mask[number]
        assert special.nonzero().flatten().tolist() == [0, *range(length - 1, len(ids))]
        assert (batch.word_ids[number] < 0).equal(special)
    assert batch.mask_token_id == tokenizer.mask_token_id < data.tokenizer_size
    assert batch.closed.dtype == batch.has_twin.dtype == torch.bool


def test_words_masks_and_truncation() -> None:
    tokenizer = build_tokenizer("embedded")
    fields = tokenize(tokenizer, ["Zyxgastroenteropathy [MASK] ~CT~ zyx!", "a"], 9)
    assert fields["input_ids"].shape == (2, 9)  # a multiple of 8 would be longer than allowed
    assert tokenizer.unk_token_id not in fields["input_ids"]
    assert fields["word_ids"][0].tolist()[1:3] == [0, 0]  # pieces of one word
    assert fields["word_ids"][1].tolist() == [-1, 0] + [-1] * 7
    spelled = tokenize(tokenizer, ["see [MASK] here"], 16)
    at_mask = spelled["input_ids"][0] == tokenizer.mask_token_id
    assert at_mask.sum() == 1 and spelled["special_tokens_mask"][0][at_mask].all()


def test_tokenizer_state_needs_no_folder(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "data")
    folder = tmp_path / "tokenizer"
    build_tokenizer("embedded").save_pretrained(folder)
    saved = VQARAD(str(root), tokenizer=str(folder))
    before = next(iter(saved.test_dataloader()))
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(UserError, match=r"no folder .*tokenizer\.json"):
        _ = VQARAD(str(root), tokenizer=str(folder)).tokenizer
    restored = VQARAD(str(root), tokenizer=str(folder))
    restored.setup("test")
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert next(iter(restored.test_dataloader())).input_ids.equal(before.input_ids)
    assert restored.state_dict() == saved.state_dict()
    assert restored.tokenizer_size == saved.tokenizer_size


def test_state_forgets_truncation_and_keeps_special_tokens() -> None:
    tokenizer = build_tokenizer("embedded")
    tokenize(tokenizer, ["cut this text short"], 3)
    again = tokenizer_from_state(tokenizer_state(tokenizer, "embedded"))
    text = "this text is not cut short"
    assert again(text)["input_ids"] == build_tokenizer("embedded")(text)["input_ids"]
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.get_vocab() == tokenizer.get_vocab()


def test_unreachable_tokenizer_says_what_to_provide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'nobody/nothing' cannot be loaded .*tokenizer\.json"):
        build_tokenizer("nobody/nothing")


def flat(loader: Iterable[VQABatch]) -> list[tuple[str, int]]:
    return [
        (name, int(image.long().sum()))
        for batch in loader
        for name, image in zip(batch.sample_ids, batch.per_pair(batch.image), strict=True)
    ]


def passes(data: VQARAD, epochs: int) -> list[list[tuple[str, int]]]:
    loader = data.train_dataloader()
    found = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        found.append(flat(loader))
    return found


def test_order_and_augmentation_are_functions_of_seed_and_epoch(tmp_path: Path) -> None:
    root = str(write_vqa(tmp_path / "data"))
    data = [VQARAD(root, batch_size=3, num_workers=workers, seed=3) for workers in (0, 2)]
    alone, workers = passes(data[0], 2), passes(data[1], 2)
    assert alone == workers
    assert sorted(alone[0]) != alone[0] and alone[0] != alone[1]
    torch.manual_seed(123)  # whatever else draws random numbers
    before = torch.random.get_rng_state()
    assert passes(data[0], 2) == alone
    assert torch.random.get_rng_state().equal(before)
    assert passes(VQARAD(root, batch_size=3, seed=4), 1)[0] != alone[0]


class Recorder(LightningModule):
    """Learns nothing and remembers which samples it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[str, int]] = []

    def training_step(self, batch: VQABatch, batch_idx: int) -> Tensor:
        self.seen += flat([batch])
        loss: Tensor = self.layer(torch.ones(1, 1)).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize(("workers", "questions_per_image"), [(0, None), (2, None), (0, 2)])
def test_interrupted_training_goes_on_where_it_stopped(
    tmp_path: Path, workers: int, questions_per_image: int | None
) -> None:
    root = str(write_vqa(tmp_path / "data"))

    def train(steps: int, checkpoint: Path | None = None) -> Recorder:
        module = Recorder()
        options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        keep = ModelCheckpoint(dirpath=tmp_path / "ckpt", every_n_train_steps=steps, filename="stop")
        trainer = Trainer(accelerator="cpu", max_steps=steps, callbacks=[keep], **options)
        data = VQARAD(
            root,
            batch_size=2,
            validation_fraction=0,
            num_workers=workers,
            questions_per_image=questions_per_image,
        )
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        return module

    whole = train(16)  # six batches an epoch, so the stop below is in the middle of the second one
    (tmp_path / "ckpt" / "stop.ckpt").unlink()
    first = train(8)
    rest = train(16, tmp_path / "ckpt" / "stop.ckpt")
    assert first.seen + rest.seen == whole.seen


def test_problem_rows_are_left_out_in_one_warning(tmp_path: Path) -> None:
    rows = [
        row(100, "absent.png", "missing image?", "yes"),
        row(101, "cut.png", "broken image?", "yes"),
        row(102, "../../secret.png", "outside?", "yes"),
        row(103, "0.png", "no answer?", None),
        row(104, "0.png", "odd type?", "yes", answer_type="MAYBE"),
        row(105, "absent.png", "test, too?", "yes", phrase_type="test_para"),
    ]
    root = write_vqa(tmp_path / "data", rows=rows)
    whole = (root / "images" / "1.png").read_bytes()
    (root / "images" / "cut.png").write_bytes(whole[: len(whole) // 2])
    data = VQARAD(str(root), validation_fraction=0)
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    (message,) = [str(warning.message) for warning in caught]
    for part in (
        "1 x train row without an answer, left out",
        "1 x row whose answer_type is neither OPEN nor CLOSED, left out",
        "1 x train row left out: image: no such file",
        "1 x train row left out: image path leads outside the data set: 17 (images/../../secret.png)",
    ):
        assert part in message
    assert "(images/cut.png)" in message
    assert len(data.records("train")) == 12  # the test question's framed form is a twin
    with pytest.warns(UserWarning, match="1 x test row left out: image: no such file"):
        data.setup("test")
    assert data.description["test"] == "1 of 2 (images unusable)"


def test_split_without_usable_rows_is_an_error(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "data")
    for image in (root / "images").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=r"the train split has no usable row .* and 9 more"):
        VQARAD(str(root), validation_fraction=0).setup("fit")


def test_question_ids_become_unique(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "data", images=1)
    data = VQARAD(str(root), validation_fraction=0)
    records = data.records("train")
    with pytest.warns(UserWarning, match=r"1 x question id that occurs again, renamed: 1 to 1#2"):
        problems = Problems("VQA-RAD")
        unique = with_unique_ids([*records, records[0]], problems)
        problems.warn()
    assert [record.sample_id for record in unique] == ["1", "2", "1#2"]


def test_cache_leaves_the_data_set_untouched_and_changes_no_order(tmp_path: Path) -> None:
    root = write_vqa(tmp_path / "data")
    files = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    data = VQARAD(str(root), cache=str(tmp_path / "cache"), image_size=64)
    data.prepare_data()
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 6
    plain = VQARAD(str(root), image_size=64)
    assert passes(data, 1) == passes(plain, 1)  # smaller than the cache's limit: the same pixels
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == files


def test_hyper_parameters_are_plain_and_complete(tmp_path: Path) -> None:
    data = VQARAD(str(tmp_path), batch_size=7)
    assert dict(data.hparams)["batch_size"] == 7
    assert VQARAD(**data.hparams).hparams == data.hparams
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        VQARAD(str(tmp_path), batch_size=0)


def test_loaders_follow_lightnings_conventions(tmp_path: Path) -> None:
    data = VQARAD(str(write_vqa(tmp_path / "data")), batch_size=4, validation_fraction=0.4)
    train, validation = data.train_dataloader(), data.val_dataloader()
    assert isinstance(validation, DataLoader)
    assert len(train) == len(data.records("train")) // 4 and train.drop_last
    assert [name for name, _ in flat(validation)] == [row.sample_id for row in data.records("validation")]
    large = VQARAD(str(tmp_path / "data"), batch_size=50)
    assert [len(batch) for batch in large.train_dataloader()] == [len(large.records("train"))]


class KillsItsWorker(Recorder):
    """Loses a loading process after the second batch, as the system does when memory is short."""

    def training_step(self, batch: VQABatch, batch_idx: int) -> Tensor:
        if batch_idx == 1:
            (worker,) = (child.pid for child in multiprocessing.active_children())
            assert worker is not None
            self.killed = time.monotonic()
            os.kill(worker, signal.SIGKILL)
        return super().training_step(batch, batch_idx)


def test_a_worker_that_dies_ends_the_training_at_once(tmp_path: Path) -> None:
    data = VQARAD(str(write_vqa(tmp_path / "data")), batch_size=1, num_workers=1, validation_fraction=0)
    module = KillsItsWorker()
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1000, enable_checkpointing=False, **options)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed by signal|exited unexpectedly)"):
        trainer.fit(module, data)
    assert time.monotonic() - module.killed < 30


def test_an_image_that_vanishes_during_the_run_is_named(tmp_path: Path) -> None:
    data = VQARAD(str(write_vqa(tmp_path / "data")), batch_size=1, num_workers=1, validation_fraction=0)
    data.setup("fit")
    (tmp_path / "data" / "images" / "3.png").unlink()
    with pytest.raises(ImageError, match=r"images/3\.png: no such file \(it could be read when the run began\)"):
        list(data.train_dataloader())


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError])
def test_a_worker_that_dies_while_it_hands_over_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    data = VQARAD(str(write_vqa(tmp_path / "data")), batch_size=1, num_workers=1, validation_fraction=0.3)

    def fail(loader: object) -> None:
        raise error("reset by peer")

    monkeypatch.setattr(DataLoader, "__iter__", fail)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert isinstance(loader, DataLoader)
        with pytest.raises(RuntimeError, match="a DataLoader worker exited unexpectedly"):
            next(iter(loader))
