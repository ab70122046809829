"""Texts that look alike are alike: one form for what Unicode can write in several ways."""

from __future__ import annotations

import unicodedata
from typing import Final

_INVISIBLE: Final = "Cf"
_DASH: Final = "Pd"
_QUOTES: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


def plain(text: str) -> str:
    """A text in Unicode's form NFKC, without invisible characters, with plain dashes and quotes.

    Composed and decomposed letters, full-width letters and digits, non-breaking blanks, byte order marks and curly
    quotes are what people's files hold without their knowing.
    """
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    kinds = {letter: unicodedata.category(letter) for letter in set(normal)}
    return "".join("-" if kinds[letter] == _DASH else letter for letter in normal if kinds[letter] != _INVISIBLE)
