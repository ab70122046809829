"""The report to send around: one page with tables, a picture, questions with their images, and how all was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from xml.etree.ElementTree import Element

import pandas as pd

from umd.protocols import FEW, FEW_NOTE
from umd.scoring.figure import accuracy_picture
from umd.scoring.page import element, items, page, table
from umd.scoring.scored import Scored
from umd.scoring.scores import METRICS_IN_WORDS, WHOLE, interval_text

HOW: Final = (
    "Answers are matched to questions by question id, or by image and question, never by order. A question without an "
    "answer, or with different ones, counts as wrong.",
    "Answers and accepted answers are compared after the normalisation of the VQA evaluation (Antol et al., ICCV 2015: "
    "lower case, no articles, no punctuation, digits for number words), on text in Unicode's form NFKC. Plurals are "
    "other words. Of several accepted answers the best counts.",
    "Accuracy: exact match; to a closed question about yes or no also a sentence, if the yes or no that is its first "
    "word, or the last of a clause, is accepted. What says neither, or both, counts as wrong.",
    "Token F1, precision and recall: words as often as they occur (Rajpurkar et al., EMNLP 2016). BLEU-1 (Papineni et "
    "al., ACL 2002) and ROUGE-L F1 (Lin, 2004): torchmetrics' on each answer by itself. All are means over questions.",
    "Intervals: 95 %, percentile bootstrap with 2,000 resamples, over questions, and over images with all their "
    "questions (questions about one image are not independent).",
    "Controls: the same system's answers to the same questions asked otherwise (about a blank image, another one, in "
    "other words), graded alike; of closed questions about yes or no it is the yes or no that changes, elsewhere the "
    "normalised answer. Those to twins are graded by the twins' own answers.",
    "Pairs: exact sign-flip tests of the difference, over questions (McNemar's test) and over images, corrected for "
    "the number of pairs (Holm, 1979).",
    "Without a look at the image: train's most frequent answer; that to questions of the same type; that to train's "
    "nearest question (cosine of TF-IDF vectors of words; of equally near ones the most frequent answer); where "
    "questions have a twin in train as published, its answer, and else that to questions of the same type.",
)

PROTOCOLS: Final = {
    "clean": "clean: train is without the rows that reword a test question (its twins).",
    "paper": "paper: train is as published, with the rows that reword test questions.",
    "hub": "hub: train is that of the Hugging Face copy of VQA-RAD.",
    "disjoint": "disjoint: train is as under clean, without all questions about images of the test split.",
}


def report(result: Scored, picture: Callable[[str], str | None] | None = None, most: int = 0, made: str = "") -> str:
    """The page, as HTML.

    Args:
        result: what is reported.
        picture: an image's data address; None where it cannot be read.
        most: how many images are shown with their questions.
        made: by what, for the last line.
    """
    title = f"Scores: {', '.join(result.matched)}"
    return page(title, _parts(result, picture, most, made))


def _parts(result: Scored, picture: Callable[[str], str | None] | None, most: int, made: str) -> Iterator[Element]:
    asked = result.questions
    yield element("h1", f"Scores on {asked.title}")
    yield element(
        "p", f"{', '.join(result.matched)}: answers to {len(asked.table):,} questions about "
        f"{asked.table['image'].nunique():,} images."
    )  # fmt: skip
    yield items(result.notes)
    yield element("h2", "Accuracy")
    yield _accuracies(result)
    yield element(
        "figure",
        element("img", src=accuracy_picture(result.rows), alt="Accuracy of each system on each group"),
        element("figcaption", "The same; ticks: what is right without a look at the image."),
    )
    yield element("h2", "Other marks")
    yield _marks(result)
    if result.controls:
        yield element("h2", "The same questions asked otherwise")
        yield _controls(result)
    if len(result.pairs):
        yield element("h2", "In pairs")
        yield _pairs(result)
        yield _agreement(result)
    if most and picture is not None:
        yield element("h2", "Questions")
        yield from _cases(result, picture, most)
    yield element("h2", "How this was measured")
    yield items([*HOW, *(text for name, text in PROTOCOLS.items() if f"protocol {name}," in asked.title)])
    if asked.sources:
        yield element("h2", "Sources")
        yield items(asked.sources)
    yield element("p", element("small", made))


def _accuracies(result: Scored) -> Element:
    fools = list(result.questions.fools)
    cells: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in result.rows:
        cells.setdefault(row["group"], {})[row["system"]] = row
    head = [_head("questions"), *map(_head, result.matched), *(_head(name, "fool") for name in fools)]
    rows = [
        [_counted(group, next(iter(of_group.values())))]
        + [_accuracy(of_group[name]) for name in result.matched]
        + [element("td", f"{of_group[name]['accuracy']:.1f}", class_="fool") for name in fools]
        for group, of_group in cells.items()
    ]
    caption = "Per cent; below each value its intervals over questions and over images (- of a single image)."
    if any(row["images"] < FEW for row in result.rows):
        caption += f" {FEW_NOTE}"
    if fools:
        caption += " Grey: what is right without a look at the image. Shaded, <: less than one of these."
    return table(caption, head, rows)


def _accuracy(row: Mapping[str, Any]) -> Element:
    ends = _ends(row, "interval", "image_interval")
    value = element("b", f"{'< ' if row['below'] else ''}{row['accuracy']:.1f}")
    if row["below"]:
        return element("td", value, *ends, class_="below", title=f"less than {', '.join(row['below'])}")
    return element("td", value, *ends)


def _marks(result: Scored) -> Element:
    head = [_head(""), _head("questions", "text"), *map(_head, METRICS_IN_WORDS.values())]
    rows = []
    for row in sorted(result.rows, key=lambda row: list(result.graded).index(row["system"])):
        if row["group"] in WHOLE:
            kind = "fool" if row["fool"] else ""
            cells = [element("td", row["system"], class_=kind), element("td", row["group"], class_="text")]
            rows.append(cells + [element("td", f"{row[metric]:.1f}", class_=kind) for metric in METRICS_IN_WORDS])
    return table("Means over questions, in per cent.", head, rows)


def _controls(result: Scored) -> Element:
    head = [_head(name) for name in ("control", "accuracy", "as asked", "both right", "changed")]
    rows = [
        [
            _counted(row["control"], row),
            element("td", element("b", f"{row['accuracy']:.1f}"), *_ends(row, "interval", "image_interval")),
            element("td", f"{row['as_asked']:.1f}"),
            element("td", f"{row['both_right']:.1f}"),
            element("td", f"{row['changed']:.1f}", *_ends(row, "changed_interval")),
        ]
        for row in result.controls
    ]
    caption = (
        "Per cent. As asked: accuracy on the same questions as they are; both right: as asked and under the control; "
        "changed: share of questions with another answer than as asked."
    )
    return table(caption, head, rows)


def _counted(name: str, row: Mapping[str, Any]) -> Element:
    """A row's name, and below it what it is measured on."""
    questions, images = (
        f"{row[of]:,} {of if row[of] != 1 else of.removesuffix('s')}" for of in ("questions", "images")
    )
    return element("td", name, element("small", questions), element("small", images))


def _ends(row: Mapping[str, Any], *over: str) -> list[Element]:
    return [element("small", interval_text(row, one)) for one in over]


def _pairs(result: Scored) -> Element:
    head = [_head("pair"), _head("over", "text")]
    head += [_head(name) for name in ("difference", "95 % interval", "p", "p (Holm)")]
    rows = [
        [
            element("td", f"{row['one']} against {row['other']}"),
            element("td", row["over"], class_="text"),
            element("td", f"{row['difference']:+.1f}"),
            element("td", f"[{row['low']:+.1f}, {row['high']:+.1f}]"),
            element("td", _p(row["p"])),
            element("td", _p(row["p_holm"])),
        ]
        for row in result.pairs.to_dict("records")
    ]
    return table("Accuracy, percentage points.", head, rows)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _agreement(result: Scored) -> Element:
    names = ("same answer", "both right", "only first right", "only second right", "both wrong")
    rows = []
    for row in result.agreement:
        one, other, *shares = row.values()
        rows.append([element("td", f"{one} and {other}"), *(element("td", f"{share:.1f}") for share in shares)])
    return table("Agreement, in per cent of all questions.", [_head("pair"), *map(_head, names)], rows)


def _cases(result: Scored, picture: Callable[[str], str | None], most: int) -> Iterator[Element]:
    """Images with their questions, those with the largest share of wrong answers first."""
    asked, systems = result.questions.table, result.systems
    right = pd.DataFrame({name: marks["correct"].astype(float) for name, marks in systems.items()}).mean(axis=1)
    shares = right.groupby(asked["image"], sort=False).mean().sort_values(kind="stable")
    shown = list(shares.index[:most])
    yield element("p", f"{len(shown):,} of {len(shares):,} images, those with the most wrong answers first.")
    head = [_head("question"), _head("accepted", "text"), *(_head(name, "text") for name in systems)]
    for image in shown:
        places = asked.index[asked["image"] == image]
        rows = [
            [
                element("td", asked["question"][place], element("small", asked["question_id"][place])),
                element("td", " | ".join(asked["accepted"][place]), class_="text"),
                *(
                    _answer(result.matched[name].answers[place], marks["correct"][place])
                    for name, marks in systems.items()
                ),
            ]
            for place in places
        ]
        address = picture(image)
        pictured = element("img", src=address, alt="") if address else element("p", "(image cannot be read)")
        yield element("div", pictured, table(image, head, rows), class_="case")


def _answer(answer: str | None, correct: bool) -> Element:
    mark = "\u2713 " if correct else "\u2717 "
    return element(
        "td", mark + ("(none)" if answer is None else answer), class_="text right" if correct else "text wrong"
    )


def _head(name: str, kind: str = "") -> Element:
    return element("th", name, class_=kind) if kind else element("th", name)
