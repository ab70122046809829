"""Retrieval, on a tiny copy of ROCO's layout."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

from datamodules import ROCORetrieval
from umd.batch import RetrievalBatch
from umd.files import UserError

TEXTS = ["Chest film of a child.", "chest film OF a child.", "Axial scan of the head.", "Axial scan of the head."]
TEXTS += [f"Image number {number} of a long series, with{' more' * number} words." for number in range(6)]


def write_split(root: Path, split: str, texts: list[str]) -> None:
    images = root / split / "radiology" / "images"
    images.mkdir(parents=True)
    for number in range(len(texts)):
        Image.new("L", (9, 9), number).save(images / f"ROCO_{number}.jpg")
    lines = [f"ROCO_{number}\t{text}\n" for number, text in enumerate(texts)]
    (images.parent / "captions.txt").write_text("".join(lines))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_split(tmp_path, "train", TEXTS)
    write_split(tmp_path, "test", [f"A test image, number {number}." for number in range(30)])
    return tmp_path


def negatives(data: ROCORetrieval, epoch: int) -> dict[str, list[str]]:
    """The negatives of each training sample, read back from the token ids."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    plain = {tuple(data.tokenizer(text)["input_ids"]): text for text in TEXTS}
    found: dict[str, list[str]] = {}
    for batch in loader:
        assert isinstance(batch, RetrievalBatch)
        assert batch.negative_input_ids.shape == batch.negative_attention_mask.shape
        assert batch.negative_input_ids.shape[::2] == batch.input_ids.shape
        assert not batch.negative_input_ids[~batch.negative_attention_mask].any()  # padding has id 0
        for name, ids, mask in zip(
            batch.sample_ids, batch.negative_input_ids, batch.negative_attention_mask, strict=True
        ):
            found[name] = [plain[tuple(row[keep].tolist())] for row, keep in zip(ids, mask, strict=True)]
    return found


def test_negatives_are_different_texts_of_the_training_split(root: Path) -> None:
    data = ROCORetrieval(str(root), negatives=7, batch_size=10)
    seen = set()
    for epoch in range(3):
        for name, texts in negatives(data, epoch).items():
            own = TEXTS[int(name.rpartition("_")[2])].casefold()
            folded = {text.casefold() for text in texts}
            assert own not in folded and len(folded) == 7  # eight texts differ: all but the own one
            seen |= folded
    assert seen == {text.casefold() for text in TEXTS}


def test_negatives_are_functions_of_seed_epoch_and_sample(root: Path) -> None:
    def draw(epoch: int, *, batch_size: int = 5, workers: int = 0, seed: int = 0) -> dict[str, list[str]]:
        data = ROCORetrieval(str(root), negatives=3, batch_size=batch_size, num_workers=workers, seed=seed)
        return negatives(data, epoch)

    first = draw(1)
    assert draw(1, batch_size=2, workers=2) == first
    assert draw(2) != first and draw(1, seed=1) != first
    assert len({tuple(sorted(texts)) for texts in first.values()}) > 1


def test_negatives_are_drawn_evenly(root: Path) -> None:
    pairs = ROCORetrieval(str(root), negatives=1).train_dataloader().dataset
    drawn = [pairs[epoch * len(TEXTS) + 4].negatives[0] for epoch in range(210)]
    counts = [drawn.count(text) for text in sorted(set(drawn))]
    # Seven texts, 30 times each on average; chi-square with 6 degrees of freedom exceeds 22.5 once in 1,000.
    assert len(counts) == 7 and sum((count - 30) ** 2 / 30 for count in counts) < 22.5


def test_test_pairs_are_the_first_usable_ones_of_the_shuffle(root: Path) -> None:
    order = list(range(30))
    random.Random(42).shuffle(order)
    images = root / "test" / "radiology" / "images"
    (images / f"ROCO_{order[1]}.jpg").write_bytes((images / f"ROCO_{order[1]}.jpg").read_bytes()[:200])
    captions = images.parent / "captions.txt"
    captions.write_text(captions.read_text().replace(f"ROCO_{order[3]}\tA test image, number", f"ROCO_{order[3]}\tNo."))
    for late in order[8:]:
        (images / f"ROCO_{late}.jpg").unlink()  # never looked at
    data = ROCORetrieval(str(root), test_pairs=6, batch_size=4, seed=5)
    with pytest.warns(UserWarning, match=r"1 x test row left out: image: .*ROCO_\d+\.jpg\)$") as caught:
        data.setup("test")
    assert len(caught) == 1
    expected = [f"roco/ROCO_{number}" for number in (order[0], order[2], *order[4:8])]
    batches = list(data.test_dataloader())
    assert [name for batch in batches for name in batch.sample_ids] == expected
    assert all(batch.negative_input_ids.shape == (len(batch), 0, batch.input_ids.shape[1]) for batch in batches)
    assert data.description == {
        "data": "ROCO",
        "test": "6 of 7 (images unusable), the first after a shuffle with seed 42",
        "captions of fewer than 3 words, left out": "1",
    }


def test_a_small_test_split_is_used_whole(root: Path) -> None:
    data = ROCORetrieval(str(root))
    data.setup("test")
    assert data.description == {"data": "ROCO", "test": "30"}
    assert not data.has_split("validation")


def test_broken_caption_lines_are_one_warning(root: Path) -> None:
    captions = root / "train" / "radiology" / "captions.txt"
    captions.write_bytes(captions.read_bytes() + b"ROCO_0\t \nROCO_1 no tab\nROCO_2\tna\xefve text\n")
    data = ROCORetrieval(str(root), negatives=2)
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    (message,) = [str(warning.message) for warning in caught]
    for part in (
        "1 x line without an id or a caption, left out: captions.txt:11",
        "1 x line without a tab, left out: captions.txt:12",
        "1 x line that is not UTF-8, left out: captions.txt:13",
    ):
        assert part in message
    assert len(data.records("train")) == 10


def test_errors_name_the_argument_or_the_folder(root: Path) -> None:
    with pytest.raises(ValueError, match=r"negatives: 8 a pair need at least 9 different texts .* which has 8"):
        ROCORetrieval(str(root), negatives=8).train_dataloader()
    with pytest.raises(ValueError, match="test_pairs must be at least 1, not 0"):
        ROCORetrieval(str(root), test_pairs=0)
    with pytest.raises(UserError, match=r"looked in .*/train for \{train,validation,test\}/radiology"):
        ROCORetrieval(str(root / "train")).setup("fit")


def test_without_negatives_training_yields_plain_pairs(root: Path) -> None:
    batch = next(iter(ROCORetrieval(str(root), negatives=0, batch_size=4).train_dataloader()))
    assert isinstance(batch, RetrievalBatch) and batch.negative_input_ids.shape[:2] == (4, 0)
