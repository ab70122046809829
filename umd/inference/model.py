"""A trained model as a user holds it: images and questions in, answers out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from umd.files import UserError
from umd.inference.explanation import Explains, Explanation, Method, of_words
from umd.inference.network import Embeds, Network, Settings, Task
from umd.inference.preparation import ImageSource, Preparation
from umd.inference.reply import Reply, ranked

Images: TypeAlias = (
    list[str] | list[Path] | list[Image.Image] | list[NDArray[Any]] | list[ImageSource] | tuple[ImageSource, ...]
)
Texts: TypeAlias = list[str] | tuple[str, ...]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_USES: dict[Task, str] = {
    "answering": "it answers questions: `answer`, or umd answer --question",
    "classification": "it tells classes: `classify`, or umd answer --text",
    "retrieval": "it ranks texts: `rank`, or umd answer --texts",
    "pretraining": "it has no answers yet, since they come with fine-tuning; `embed` gives its vectors",
}


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of the encoders of one modality, before they are fused.

    Attributes:
        images: (N, D) float32; None where no images were given.
        texts: (M, D') float32; None where no texts were given.
        comparable: whether both were trained into one space: then D = D', all are of unit length, and
            `images @ texts.T` is their similarity.
    """

    images: NDArray[np.float32] | None
    texts: NDArray[np.float32] | None
    comparable: bool


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """How much a reply owes to its image: the same question again, with another one.

    Attributes:
        reply: to the image itself.
        blank: to a uniformly grey image.
        other: to the image of another patient; None where none was given.
    """

    reply: Reply
    blank: Reply
    other: Reply | None

    def __str__(self) -> str:
        """In words, a sentence for each image that stood in."""
        stand_ins = [("a blank image", self.blank)]
        stand_ins += [("the other image", self.other)] if self.other is not None else []
        return " ".join(self._told(name, reply) for name, reply in stand_ins)

    def _told(self, name: str, reply: Reply) -> str:
        best, there = self.reply.best, reply.best
        share = f"{there.probability:.2f} in the place of {best.probability:.2f}"
        if there.text == best.text:
            return f"With {name} the answer is the same, '{there.text}' (probability {share})."
        return f"With {name} the answer is another one, '{there.text}' (probability {there.probability:.2f})."


class Model:
    """A trained model that answers; `umd.load` makes one.

    Several threads may use one model: they take turns.

    Args:
        network: scores prepared pairs.
        preparation: makes them.
        settings: what is known of the model.
    """

    def __init__(self, network: Network, preparation: Preparation, settings: Settings) -> None:
        self.network = network
        self.preparation = preparation
        self.settings = settings

    def __repr__(self) -> str:
        return f"<{self.settings.stage} for {self.settings.task}, from {self.settings.source}>"

    @property
    def blank(self) -> NDArray[np.uint8]:
        """The image that stands for none, (S, S, 3), uniformly of the mean colour that the vision encoder expects."""
        return np.full((self.settings.image_size, self.settings.image_size, 3), self.settings.blank, dtype=np.uint8)

    @overload
    def answer(self, image: ImageSource, question: str, *, top: int = 5, batch_size: int = 32) -> Reply: ...

    @overload
    def answer(
        self, image: ImageSource | Images, question: Texts, *, top: int = 5, batch_size: int = 32
    ) -> list[Reply]: ...

    @overload
    def answer(self, image: Images, question: str, *, top: int = 5, batch_size: int = 32) -> list[Reply]: ...

    def answer(
        self, image: ImageSource | Images, question: str | Texts, *, top: int = 5, batch_size: int = 32
    ) -> Reply | list[Reply]:
        """Answer a question about an image, or several: as many of both, or one of one of them for all of the other.

        Args:
            image: a file (DICOM too), an image of Pillow or an array (see `to_image`); or a list of them.
            question: a question, or a list of them.
            top: how many answers, the likeliest first.
            batch_size: how many questions are computed at once.

        Returns:
            A reply; a list of them where either was a list.

        Raises:
            UserError: the model does not answer questions; or a question is empty, an image cannot be used, or there
                are not as many images as questions.
        """
        self._need("answering")
        pairs, several = paired(image, question, "question")
        replies = self._replies(pairs, top, batch_size, told=True)
        return replies if several else replies[0]

    @overload
    def classify(self, image: ImageSource, text: str = "", *, top: int = 5, batch_size: int = 32) -> Reply: ...

    @overload
    def classify(
        self, image: ImageSource | Images, text: Texts, *, top: int = 5, batch_size: int = 32
    ) -> list[Reply]: ...

    @overload
    def classify(self, image: Images, text: str = "", *, top: int = 5, batch_size: int = 32) -> list[Reply]: ...

    def classify(
        self, image: ImageSource | Images, text: str | Texts = "", *, top: int = 5, batch_size: int = 32
    ) -> Reply | list[Reply]:
        """Tell the class of an image with its text (a caption, or whatever is known; may be ""); as `answer`."""
        self._need("classification")
        pairs, several = paired(image, text)
        replies = self._replies(pairs, top, batch_size, told=True)
        return replies if several else replies[0]

    def rank(self, image: ImageSource, texts: Texts, *, top: int | None = None, batch_size: int = 32) -> Reply:
        """Rank texts by how well they go with an image.

        Args:
            image: as in `answer`.
            texts: what to choose from; probabilities are shares among them.
            top: how many to return, the best first; None: all.
            batch_size: how many pairs are computed at once.

        Raises:
            UserError: the model does no retrieval; or there are no texts, or an empty one, or the image cannot be used.
        """
        self._need("retrieval")
        if not texts:
            raise UserError("rank: there are no texts to choose from")
        _no_empty(texts, "text")
        pixels = self.preparation.image(image)[None]
        cut = any(self._cut(texts))
        parts = [self.network.scores(self.preparation.inputs(pixels, few)) for few in chunks(texts, batch_size)]
        answers = ranked(np.concatenate(parts)[:, 0], texts, self.settings.link, top or len(texts))
        return Reply(name_of(image), "", answers, cut)

    def embed(
        self, images: ImageSource | Images | None = None, texts: str | Texts | None = None, *, batch_size: int = 32
    ) -> Embeddings:
        """Vectors of images and of texts, each from its own encoder; any checkpoint gives them.

        Args:
            images: one or several, as in `answer`; None: none.
            texts: one or several; None: none.
            batch_size: how many are computed at once.

        Raises:
            UserError: an image cannot be used, a text is empty, or the model was exported without its encoders.
        """
        network = self.network
        if not isinstance(network, Embeds):
            raise UserError(f"'{self.settings.source}' gives scores alone, no vectors: load the checkpoint")
        vectors: dict[str, NDArray[np.float32] | None] = {"images": None, "texts": None}
        if images is not None:
            parts = [
                network.embed_images(np.stack([self.preparation.image(image) for image in few]))
                for few in chunks(as_list(images), batch_size)
            ]
            vectors["images"] = np.concatenate(parts)
        if texts is not None:
            listed = as_list(texts)
            _no_empty(listed, "text")
            blank = np.moveaxis(self.blank, -1, 0)[None]
            prepared = [self.preparation.inputs(blank, few) for few in chunks(listed, batch_size)]
            parts = [network.embed_texts(inputs.input_ids, inputs.attention_mask) for inputs in prepared]
            vectors["texts"] = np.concatenate(parts)
        return Embeddings(**vectors, comparable=network.comparable)

    @overload
    def check_image(
        self,
        image: ImageSource,
        text: str,
        *,
        other: ImageSource | None = None,
        top: int = 5,
        batch_size: int = 32,
    ) -> ImageCheck: ...

    @overload
    def check_image(
        self,
        image: Images,
        text: Texts,
        *,
        other: ImageSource | Images | None = None,
        top: int = 5,
        batch_size: int = 32,
    ) -> list[ImageCheck]: ...

    def check_image(
        self,
        image: ImageSource | Images,
        text: str | Texts,
        *,
        other: ImageSource | Images | None = None,
        top: int = 5,
        batch_size: int = 32,
    ) -> ImageCheck | list[ImageCheck]:
        """Ask again with a uniformly grey image and, if given, with another patient's: what does the answer owe to it?

        Args:
            image: as in `answer`.
            text: the question, or the text of `classify`; a list where there are several images.
            other: an image of another patient; one for all or one for each.
            top: as in `answer`.
            batch_size: as in `answer`.

        Raises:
            UserError: the model neither answers questions nor tells classes; or as in `answer`.
        """
        self._need("answering", "classification")
        pairs, several = paired(image, text, "question" if self.settings.task == "answering" else None)
        texts = [text for _, text in pairs]
        replies = self._replies(pairs, top, batch_size, told=True)
        blank = self._replies([(self.blank, text) for text in texts], top, batch_size)
        others: Sequence[Reply | None] = [None] * len(pairs)
        if other is not None:
            others = self._replies(paired(other, texts)[0], top, batch_size)
        checks = [ImageCheck(*three) for three in zip(replies, blank, others, strict=True)]
        return checks if several else checks[0]

    def explain(
        self, image: ImageSource, text: str, *, answer: str | None = None, method: Method = "attention"
    ) -> Explanation:
        """Where an answer comes from: which patches of the image, and which words of the text.

        Args:
            image: as in `answer`.
            text: the question; the text of `classify` or of `rank`.
            answer: the answer or class to explain; None: the likeliest one. In retrieval it is the pair's score.
            method: "attention" (needs transformers in the fusion, and tells the same for every answer of a classifier)
                or "gradient" (any network; needs captum, extra `explain`).

        Raises:
            UserError: the model gives no answers, or not this one; or was exported without its inside; or as in
                `answer`.
        """
        self._need("answering", "classification", "retrieval")
        network, settings = self.network, self.settings
        if not isinstance(network, Explains):
            raise UserError(f"'{settings.source}' gives scores alone, and cannot show more: load the checkpoint")
        if settings.task != "classification":
            _no_empty([text], "question" if settings.task == "answering" else "text")
        pixels = self.preparation.image(image)
        inputs = self.preparation.inputs(pixels[None], [text])
        names = settings.names or (text,)
        answers = ranked(network.scores(inputs)[0], names, settings.link, len(names), settings.temperature)
        reply = Reply(name_of(image), text, answers, self._cut([text])[0])
        chosen = reply.best.text if answer is None else answer
        if chosen not in names:
            raise UserError(f"'{chosen}' is none of the {len(names)} that this model can say")
        mask_token = int(self.preparation.tokenizer.mask_token_id)
        found = network.attribute(inputs, names.index(chosen), method, mask_token)
        words = of_words(found.tokens, inputs.word_ids[0], self.preparation.words(text))
        return Explanation(reply, chosen, method, pixels, found.patches, words)

    def _cut(self, texts: Sequence[str], told: bool = True) -> list[bool]:
        """Of each text whether it is longer than what is read; the log says so of each different one."""
        cut = {text: self.preparation.is_cut(text) for text in dict.fromkeys(texts)}
        for text in (text for text, is_cut in cut.items() if is_cut and told):
            logger.warning("only the first %d tokens are read of: %s", self.settings.text_length, text)
        return [cut[text] for text in texts]

    def _replies(
        self, pairs: Sequence[tuple[ImageSource, str]], top: int, batch_size: int, told: bool = False
    ) -> list[Reply]:
        if top < 1 or batch_size < 1:
            raise UserError(f"top is {top} and batch_size {batch_size}; both must be at least 1")
        replies, settings = [], self.settings
        for few in chunks(pairs, batch_size):
            texts = [text for _, text in few]
            pixels, image_index = self._pixels([image for image, _ in few])
            scores = self.network.scores(self.preparation.inputs(pixels, texts, image_index))
            replies += [
                Reply(name_of(image), text, ranked(row, settings.names, settings.link, top, settings.temperature), cut)
                for (image, text), row, cut in zip(few, scores, self._cut(texts, told), strict=True)
            ]
        return replies

    def _pixels(self, images: Sequence[ImageSource]) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """The different images, (U, 3, S, S), and which of them each of B is; None where they all differ."""
        keys = [str(image) if isinstance(image, str | Path) else id(image) for image in images]
        sources = dict(zip(keys, images, strict=True))
        pixels = np.stack([self.preparation.image(image) for image in sources.values()])
        number = {key: place for place, key in enumerate(sources)}
        return pixels, None if len(number) == len(keys) else np.array([number[key] for key in keys], dtype=np.int64)

    def _need(self, *tasks: Task) -> None:
        task = self.settings.task
        if task not in tasks:
            raise UserError(f"'{self.settings.source}' is a checkpoint of {self.settings.stage}: {_USES[task]}")


def paired(
    image: ImageSource | Images, text: str | Texts, wanted: str | None = None
) -> tuple[list[tuple[ImageSource, str]], bool]:
    """Pairs of images and texts, one of either going with all of the other; and whether there may be several.

    Args:
        image: one or several.
        text: one or several.
        wanted: what a text is called where it must not be empty; None: it may be.

    Raises:
        UserError: another number of images than of texts, none of them, or a text that is empty and must not be.
    """
    many_images, many_texts = (isinstance(given, list | tuple) for given in (image, text))
    images, texts = as_list(image), as_list(text)
    if many_images and many_texts and len(images) != len(texts):
        raise UserError(f"{len(images)} images and {len(texts)} texts: give as many of both, or one of either")
    if not images or not texts:
        raise UserError(f"there are {len(images)} images and {len(texts)} texts: at least one of each is needed")
    if wanted is not None:
        _no_empty(texts, wanted)
    number = max(len(images), len(texts))
    pairs = zip(images if many_images else images * number, texts if many_texts else texts * number, strict=True)
    return list(pairs), many_images or many_texts


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """At most `size` items at a time, in their order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def as_list(given: Any) -> list[Any]:  # noqa: ANN401 - one of anything, or several
    """A list or tuple as a list; anything else as the only one in it."""
    return list(given) if isinstance(given, list | tuple) else [given]


def name_of(image: ImageSource) -> str:
    """The path of an image; "" where it has none."""
    return str(image) if isinstance(image, str | Path) else ""


def _no_empty(texts: Sequence[str], called: str) -> None:
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            place = f"number {number} of {len(texts)} is" if len(texts) > 1 else "it is"
            raise UserError(f"a {called} must have words: {place} empty")
