"""A data set's test questions with a model's answers: which are wrong, open, closed, of a type."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from datamodules.images import ImageFile, decode
from datamodules.questions import VQARecord
from umd.files import UserError
from umd.inference import Model, Reply
from umd.inference.model import chunks
from umd.web.asking import asked
from umd.web.images import THUMBNAIL, as_jpeg
from umd.web.shown import escaped, remark

Verdict = Literal["all", "wrong", "right"]
Kind = Literal["all", "open", "closed"]

PAGE = 10
"""Questions on a page of the list."""

AT_ONCE = 8
"""Questions that are answered between two of somebody's own."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is listed.

    Attributes:
        verdict: wrong or right answers alone.
        kind: open or closed questions alone.
        type: of the data set's types of questions; "all".
    """

    verdict: Verdict = "all"
    kind: Kind = "all"
    type: str = "all"


class TestQuestions:
    """Test questions, which a model answers one after the other.

    Args:
        model: answers questions.
        title: the data set's name.
        records: the questions.
        locate: where the image of a record lies.
    """

    __test__ = False  # pytest takes the name for its own

    def __init__(
        self, model: Model, title: str, records: Sequence[VQARecord], locate: Callable[[str], ImageFile]
    ) -> None:
        self.model = model
        self.title = title
        self.records = records
        self.locate = locate
        self.replies: dict[int, Reply] = {}
        self.trouble = ""

    @property
    def types(self) -> list[str]:
        """The types of questions, the most frequent first."""
        return [name for name, _ in Counter(record.question_type for record in self.records).most_common() if name]

    def common(self, number: int) -> list[str]:
        """The most frequent questions."""
        return [text for text, _ in Counter(record.question for record in self.records).most_common(number)]

    def answer_all(self) -> None:
        """Answer those that are not answered yet; an image that has gone since ends it, and the page says so."""
        try:
            for few in chunks(range(len(self.records)), AT_ONCE):
                images = [self.image(number) for number in few]
                asked = [self.records[number].question for number in few]
                self.replies |= zip(few, self.model.answer(images, asked), strict=True)
        except UserError as error:
            self.trouble = str(error)
            logger.warning("no more test questions are answered: %s", error)

    def image(self, number: int) -> Image.Image:
        """The image of a question.

        Raises:
            UserError: it cannot be read any more.
        """
        name = self.records[number].image
        try:
            return decode(self.locate(name))
        except UserError as error:
            raise UserError(f"image '{name}': {error}") from error

    def right(self, number: int) -> bool | None:
        """Whether the answer is one that the data set accepts; None where it has none, or none was given yet."""
        accepted, reply = self.records[number].accepted, self.replies.get(number)
        return reply.best.text in accepted if accepted and reply is not None else None

    def listed(self, chosen: Chosen) -> list[int]:
        """The numbers of the questions that are chosen, in their order."""
        wanted = {"all": None, "wrong": False, "right": True}[chosen.verdict]
        return [
            number
            for number, record in enumerate(self.records)
            if (wanted is None or self.right(number) is wanted)
            and (chosen.kind == "all" or record.closed == (chosen.kind == "closed"))
            and (chosen.type in ("all", record.question_type))
        ]

    # As HTML

    def page(self, chosen: Chosen, page: int) -> str:
        """A page of the list, counted from 1; of a page that is not there the nearest one."""
        listed = self.listed(chosen)
        pages = max(1, -(-len(listed) // PAGE))
        page = min(max(page, 1), pages)
        cards = "".join(map(self.card, listed[PAGE * (page - 1) : PAGE * page]))
        told = [f"{len(listed):,} of {len(self.records):,} questions, page {page:,} of {pages:,}"]
        told += self.told(chosen, listed)
        return f'{remark("; ".join(told) + ".")}<ul class="umd-cards">{cards}</ul>'

    def told(self, chosen: Chosen, listed: Sequence[int]) -> list[str]:
        """What there is to say of a list: how many are right, and whether all are answered."""
        verdicts = [verdict for number in listed if (verdict := self.right(number)) is not None]
        parts = []
        if verdicts and chosen.verdict == "all":
            parts.append(f"{100 * sum(verdicts) / len(verdicts):.1f} % of these are answered rightly")
        if self.trouble:
            parts.append(f"answered up to number {len(self.replies):,} alone: {self.trouble}")
        elif len(self.replies) < len(self.records):
            parts.append(f"{len(self.replies):,} are answered so far, choose again for more")
        return parts

    def card(self, number: int) -> str:
        """A question in the list: a button that opens it."""
        record, reply = self.records[number], self.replies.get(number)
        best = "not answered yet"
        if reply is not None:
            best = f"{escaped(reply.best.text)} <small>{reply.best.probability:.2f}</small>"
        return (
            f'<li><button type="button" class="umd-card" data-number="{number}">{self.thumbnail(number)}'
            f'<span><span class="umd-question">{escaped(record.question)}</span>'
            f"<span>{self.mark(number)} {best}</span>{self.truth(number)}</span></button></li>"
        )

    def thumbnail(self, number: int) -> str:
        """The image, small."""
        try:
            return f'<img src="{as_jpeg(self.image(number), THUMBNAIL)}" alt="">'
        except UserError as error:
            return f"<small>{escaped(str(error))}</small>"

    def mark(self, number: int) -> str:
        """Right or wrong, in a word and a sign."""
        right = self.right(number)
        if right is None:
            return ""
        word, sign = ("right", "✓") if right else ("wrong", "✗")
        return f'<b class="umd-{word}">{sign} {word}</b>'

    def truth(self, number: int) -> str:
        """The answers that the data set accepts, and what kind of question it is."""
        record = self.records[number]
        accepted = " or ".join(map(escaped, record.accepted)) or "none is given"
        kinds = ", ".join(filter(None, ("closed" if record.closed else "open", record.question_type)))
        return f'<span class="umd-truth">accepted: {accepted} <small>({escaped(kinds)})</small></span>'

    def opened(self, number: object) -> str:
        """A question with all that the page says of an answer.

        Raises:
            UserError: there is no such question, or its image cannot be read any more.
        """
        if not isinstance(number, int) or not 0 <= number < len(self.records):
            raise UserError(f"there is no test question of this number; there are {len(self.records):,}")
        truth = f"<p>{self.mark(number)} {self.truth(number)}</p>"
        return asked(self.model, self.image(number), self.records[number].question, truth=truth)
