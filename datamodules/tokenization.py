"""Tokenizers: the shipped small one, any other that transformers can load, and their plain-type states.

`embedded_vocabulary.txt` holds one word piece a line; its line number is the token's id. It was built once
with the WordPiece trainer of `tokenizers` from the questions and answers of VQA-RAD's 2,772 training rows
that reword no test question (Lau et al., Scientific Data 2018, CC0 1.0; no test row), and from the words that
the phantom data uses. All printable ASCII characters and their continuations are in it, so no ASCII text
falls to [UNK].
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umd.files import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

EMBEDDED = "embedded"
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
EMBEDDED_LENGTH = 512
LONGEST_WORD = 1000

# Workers are forked after the tokenizer was used; its own threads would only bring a warning there.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def build_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of that name.

    Args:
        name: "embedded", the name of a model on the Hugging Face hub, or a local folder that holds its
            tokenizer.

    Raises:
        UserError: There is no such folder, or no such model in reach; says what to provide; or it is no fast
            tokenizer, or it has no padding or mask token.
    """
    tokenizer = _embedded() if name == EMBEDDED else _pretrained(name)
    missing = [token for token in ("pad_token", "mask_token") if getattr(tokenizer, token) is None]
    if missing:
        raise UserError(f"tokenizer '{name}' has no {' and no '.join(missing)}: masked language modelling needs both")
    return tokenizer


def tokenizer_state(tokenizer: PreTrainedTokenizerFast, name: str) -> dict[str, Any]:
    """All of a fast tokenizer in plain types, for a checkpoint: `tokenizer_from_state` is the inverse."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return {
        "name": name,
        "backend": backend.to_str(),
        "special_tokens": {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        "model_max_length": min(int(tokenizer.model_max_length), 2**31),
    }


def tokenizer_from_state(state: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer that a checkpoint holds; needs neither its folder nor the hub."""
    from tokenizers import Tokenizer

    return _wrap(Tokenizer.from_str(state["backend"]), state["special_tokens"], state["model_max_length"])


def _wrap(backend: Tokenizer, special_tokens: dict[str, str], length: int) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, model_max_length=length, padding_side="right", **special_tokens
    )


def _embedded() -> PreTrainedTokenizerFast:
    """Lower-case WordPiece over the shipped vocabulary: [CLS] text [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    text = resources.files("datamodules").joinpath("embedded_vocabulary.txt").read_text(encoding="utf-8")
    vocabulary = {piece: number for number, piece in enumerate(text.splitlines())}
    unknown, start, end = (SPECIAL_TOKENS[key] for key in ("unk_token", "cls_token", "sep_token"))
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=LONGEST_WORD))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(token, vocabulary[token]) for token in (start, end)]
    )
    backend.decoder = decoders.WordPiece()
    return _wrap(backend, SPECIAL_TOKENS, EMBEDDED_LENGTH)


def _pretrained(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer from a local folder, the hub's local copy, or the hub, in this order."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = Path(name).expanduser()
    provide = "a folder with tokenizer.json and tokenizer_config.json (as `save_pretrained` writes them)"
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~"))):
        raise UserError(f"tokenizer: no folder {name}; give {provide}, a hub name, or '{EMBEDDED}'")
    try:
        if folder.is_dir():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        else:
            try:
                tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
            except (OSError, ValueError):
                tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"tokenizer '{name}' cannot be loaded ({reason}). Without network, give {provide} "
            f"as `tokenizer`, or '{EMBEDDED}' for the shipped one"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"tokenizer '{name}' is a {type(tokenizer).__name__}, not a fast one: no word boundaries")
    return tokenizer
