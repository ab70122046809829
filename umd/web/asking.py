"""From an image and a text to what the page shows, for each kind of model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from umd.files import UserError
from umd.inference import ImageSource, Model
from umd.inference.explanation import Explains, Method
from umd.web.images import as_jpeg, as_png, decoded, from_png
from umd.web.shown import answered, looked, remark, trouble

MOST_CHARACTERS = 1000
"""Of a question, and of each text to choose from."""

MOST_TEXTS = 200
PREVIEW = 640
"""Pixels of the longer side of the image that was chosen, as the page shows it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that was read, as addresses that a page shows without asking for them.

    Attributes:
        preview: all of it, for the eye.
        image: the square that the model reads, every pixel: what the page asks about. The server keeps neither.
    """

    preview: str
    image: str


def prepare(model: Model, content: bytes) -> Prepared:
    """Read the bytes of an image file (DICOM too).

    Raises:
        UserError: it is no image, is broken, or has too many pixels.
    """
    image = decoded(content)
    return Prepared(
        as_jpeg(image, PREVIEW), as_png(Image.fromarray(np.moveaxis(model.preparation.image(image), 0, -1)))
    )


def ask(model: Model, image: object, text: str | None, method: Method = "attention", top: int = 5) -> str:
    """What the model says to an image and a text, as HTML.

    Args:
        model: asked.
        image: `Prepared.image`; None or "" where none was chosen yet.
        text: the question; of a classification model what is known beside the image; of a retrieval model the texts
            to choose from, one a line.
        method: see `Explanation`.
        top: how many answers.

    Raises:
        UserError: the image or the text cannot be used; the message is for the page.
    """
    text, task = (text or "").strip(), model.settings.task
    if not image:
        return remark("First choose an image.")
    if not text and task != "classification":
        return remark("First write a question." if task == "answering" else "First write texts to choose from.")
    lines = [line.strip() for line in text.splitlines() if line.strip()] if task == "retrieval" else [text]
    if any(len(line) > MOST_CHARACTERS for line in lines):
        raise UserError(f"this text is too long: up to {MOST_CHARACTERS:,} characters are read")
    picture = from_png(image)
    if task == "retrieval":
        return ranked(model, picture, lines, method, top)
    return asked(model, picture, text, method, top)


def asked(
    model: Model, image: ImageSource, text: str, method: Method = "attention", top: int = 5, truth: str = ""
) -> str:
    """What a model that answers or tells classes says, and what it owes to the image."""
    check = model.check_image(image, text, top=top)
    return answered(check.reply, check, explained(model, image, text, method), truth, model.settings.remark)


def ranked(model: Model, image: ImageSource, texts: list[str], method: Method, top: int) -> str:
    """The texts that go best with an image."""
    if len(texts) > MOST_TEXTS:
        raise UserError(f"these are {len(texts)} texts: up to {MOST_TEXTS} are ranked")
    reply = model.rank(image, texts, top=top)
    return answered(reply, None, explained(model, image, reply.best.text, method))


def explained(model: Model, image: ImageSource, text: str, method: Method) -> str:
    """Where the answer looks; where the model or this machine cannot tell, that this is so."""
    if not isinstance(model.network, Explains):
        return remark("This model gives its answers alone: where they look is known of a checkpoint.")
    try:
        return looked(model.explain(image, text, method=method))
    except UserError as error:  # a package that is not there, or no attention in the model
        return trouble(str(error))
