"""Whether a sentence says yes or no."""

from __future__ import annotations

import re
from typing import Literal

from umd.scoring.text import plain

_CLAUSE_END = re.compile(r"""[.,;:!?()\[\]{}"*\n/|\u2026-]+""")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def read_yes_no(text: str) -> Literal["yes", "no"] | None:
    """The yes or no that a text gives as its answer; None where it gives neither, or both.

    Only the words themselves are read, and only where they answer: as the first word of the text ("Yes, there is"), or
    as the last word of a clause ("The answer is no."). What is merely negated or affirmed ("There is no fracture",
    "The heart is enlarged") would have to be understood, for which this is no place: it is not read, and neither of the
    two answers has an advantage by it.

    Args:
        text: as the system wrote it.
    """
    clauses = [_WORD.findall(clause) for clause in _CLAUSE_END.split(plain(text).lower())]
    clauses = [words for words in clauses if words]
    if not clauses:
        return None
    said = {clauses[0][0], *(words[-1] for words in clauses)} & {"yes", "no"}
    if len(said) != 1:
        return None
    return "yes" if "yes" in said else "no"
