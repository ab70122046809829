"""Statements made from SLAKE's questions and answers: what is known of an image, as a caption would say it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from datamodules.questions import VQARecord

Kind = Literal["plane", "weighting", "finding", "place", "part", "seen", "unseen", "organ", "look"]
"""What a fact is about; `ORDER` says in which order a caption tells those that its beginning has not told."""

ORDER: tuple[Kind, ...] = ("finding", "place", "seen", "unseen", "organ", "look")

Fact = tuple[Kind, str]
"""What it is about, and a sentence; of a plane, a weighting, a part and an organ that is (un)seen the name alone."""

Rule = Callable[[re.Match[str], str], Fact | None]

_PLANES = ("transverse", "coronal", "sagittal")
_MISSPELT = {
    "brian": "brain",
    "barin": "brain",
    "cardiomega": "cardiomegaly",
    "cardiomegal": "cardiomegaly",
    "noudle": "nodule",
}
_ALONE = ("above", "around", "below", "under", "symmetrical")
_SAYS_NOTHING = ("unknown", "none", "no", "yes", "almost the same", "not seen")
_HERE = r"(?: (?:existing |located )?(?:in|of|about) (?:the|this) (?:image|picture|patient|body))?"
_THING = r"(?:the |a |an )?(?P<thing>[\w -]+?)"


def facts(question: str, answer: str) -> Fact | None:
    """What a question and its answer say of the image; None where nothing is known to follow from them.

    Args:
        question: As published, in English.
        answer: As published: "yes" or "no" in any case, or what is asked for.
    """
    asked = re.sub(r"\s+", " ", question.lower().replace("?", "").replace(" / ", "/")).strip()
    said = _spelt(re.sub(r"\s+", " ", answer.lower()).strip(" ."))
    for pattern, closed, rule in _RULES:
        match = pattern.fullmatch(_spelt(asked))
        if match is not None and (said in ("yes", "no")) == closed:
            return rule(match, said)
    return None


def captions(asked: Sequence[VQARecord], most_words: int) -> tuple[str, ...]:
    """What all questions about one image say of it, as one caption or several.

    Each begins with how the image was taken and what it shows, and goes on with further facts, those that are told
    in no other one.

    Args:
        asked: The questions about the image, with its modality and location among their attributes.
        most_words: Words a caption, unless one fact has more.
    """
    found = [fact for record in asked if (fact := facts(record.question, record.published_answer)) is not None]
    told: dict[Kind, list[str]] = {}
    for kind, text in dict.fromkeys(found):
        told.setdefault(kind, []).append(text)
    lead = _lead(dict(pair for record in asked for pair in record.attributes), told)
    sentences = [sentence for kind in ORDER for sentence in _sentences(kind, told.get(kind, ()))]
    return tuple(_packed(lead, sentences, most_words))


def _lead(attributes: dict[str, str], told: dict[Kind, list[str]]) -> str:
    """Such as "T2-weighted transverse MRI of the abdomen."; "" where nothing of it is known."""
    modality = attributes.get("modality", "")
    # Where both are given, the answers are right more often: a CT of liver and spleen is filed under Chest_lung.
    parts = told.get("part") or [attributes.get("location", "").partition("_")[0].lower()]
    location = _listed(parts, " and the ")
    weighting = [f"{name.upper()}-weighted" for name in told.get("weighting", ())[:1]]
    words = [*weighting, *told.get("plane", ())[:1], *([modality] if modality else ["image"])]
    if not modality and len(words) == 1 and not location:
        return ""
    text = " ".join([*words, *([f"of the {location}"] if location else [])])
    return f"{text[0].upper()}{text[1:]}."


def _sentences(kind: Kind, texts: Sequence[str]) -> Iterator[str]:
    if not texts:
        return
    if kind == "seen":
        yield f"It contains {_listed(texts)}."
    elif kind == "unseen":
        yield f"It contains no {_listed(texts, ' and no ')}."
    else:
        for text in texts:
            yield f"{text[0].upper()}{text[1:]}."


def _packed(lead: str, sentences: Iterable[str], most_words: int) -> Iterator[str]:
    """The lead with as many sentences as fit, and again with those that follow."""
    now: list[str] = []
    for sentence in sentences:
        if now and len(" ".join([lead, *now, sentence]).split()) > most_words:
            yield " ".join([lead, *now]).strip()
            now = []
        now.append(sentence)
    if now or lead:
        yield " ".join([lead, *now]).strip()


def _plane(match: re.Match[str], answer: str) -> Fact | None:
    """Of an open question the answer names it; of a closed one the question does."""
    name = match.groupdict().get("plane") or answer.partition(" ")[0]
    return ("plane", name) if answer != "no" and name in _PLANES else None


def _weighting(match: re.Match[str], answer: str) -> Fact | None:
    name = match.groupdict().get("weight") or answer
    return ("weighting", name) if answer != "no" and name in ("t1", "t2") else None


def _health(match: re.Match[str], answer: str) -> Fact | None:
    """Whether something is normal, asked one way or the other."""
    if match["thing"].endswith(" not"):
        return None  # to which yes and no may both mean either
    well = (match["word"] in ("healthy", "normal")) == (answer == "yes")
    return "finding", f"the {match['thing']} {_be(match['thing'])} {'normal' if well else 'abnormal'}"


def _any_finding(match: re.Match[str], answer: str) -> Fact:
    place = match.groupdict().get("place")
    if place is not None:
        return "finding", f"the {place} is {'abnormal' if answer == 'yes' else 'normal'}"
    return "finding", "there are abnormalities" if answer == "yes" else "there are no abnormalities"


def _finding(match: re.Match[str], answer: str) -> Fact | None:
    """A named disease, there or not; or the diseases that an open question asks for."""
    where = (match.groupdict().get("place") or "").replace(" of ", " of the ")
    there = f" {'on' if ' of ' in where else 'in'} the {where}" if where else ""
    if answer in ("yes", "no"):
        return "finding", f"there is {'no ' if answer == 'no' else ''}{match['thing']}{there}"
    return None if answer in _SAYS_NOTHING else ("finding", f"there is {_listed(answer.split(', '))}{there}")


def _which_is(match: re.Match[str], answer: str) -> Fact | None:
    """Which of two organs, or which side of one, is (ab)normal."""
    named, word = match.groupdict().get("thing"), match["word"]
    if answer == "both":
        subject = f"both sides of the {named}" if named else _listed(_choices(match["choices"]), " and the ", "the ")
        return "finding", f"{subject} are {word}"
    if named and answer not in ("left", "right"):
        return None
    return "finding", f"the {answer}{f' {named}' if named else ''} is {word}"


def _where(match: re.Match[str], answer: str) -> Fact | None:
    thing = match["thing"]
    if answer in _SAYS_NOTHING:
        return None
    return "place", f"the {thing} {_be(thing)} {', '.join(_placed(part) for part in re.split(', ?', answer))}"


def _part(match: re.Match[str], answer: str) -> Fact | None:
    name = match.groupdict().get("thing") or answer
    return None if answer in ("no", "unknown") else ("part", name.replace(", ", " and the "))


def _contains(match: re.Match[str], answer: str) -> Fact:
    return ("seen" if answer == "yes" else "unseen"), match["thing"]


def _organ(match: re.Match[str], answer: str) -> Fact:
    """Of "What is the rightmost organ?": the rightmost organ is the spleen."""
    names = re.split(r", ?| and ", answer)
    what = match["thing"] if len(names) == 1 else re.sub(r"\borgan\b", "organs", match["thing"], count=1)
    return "organ", f"the {what} {'is' if len(names) == 1 else 'are'} {_listed(names, ' and the ', 'the ')}"


def _pairs(match: re.Match[str], answer: str) -> Fact:
    return "organ", f"in pairs there are {_listed(answer.split(', '))}"


def _compared(match: re.Match[str], answer: str) -> Fact | None:
    among = _choices(match["choices"])
    if answer not in among:
        return None
    return "organ", f"of {_listed(among)} the {match['word']} is the {answer}"


def _count(match: re.Match[str], answer: str) -> Fact | None:
    if not answer.isdigit():
        return None
    thing = match["thing"]
    if answer == "0":
        return "unseen", thing
    return "organ", f"the number of {thing} is {answer}"


def _look(match: re.Match[str], answer: str) -> Fact:
    said = {"yes": "enhancing", "no": "not enhancing"}.get(answer, answer)
    return "look", f"the {match['thing']} {_be(match['thing'])} {said}"


def _placed(place: str) -> str:
    """A place with its preposition: "on the lower left", "in the left lung"."""
    words = place.split()
    if words[0] in _ALONE:
        return place
    if words[0] == "both":
        return f"in both {' '.join(words[1:]).rstrip('s')}s" if words[1:] else "on both sides"
    if words[-1] in ("left", "right") or "and" in words:
        return f"on the {place}"
    return f"{'at' if place in ('top', 'bottom') else 'in'} the {place}"


def _be(thing: str) -> str:
    return "are" if thing == "teeth" or re.search(r"(?<![siu])s$", thing) else "is"


def _choices(listed: str) -> list[str]:
    return [name.strip() for name in re.split(r",| or ", listed) if name.strip()]


def _listed(names: Sequence[str], last: str = " and ", first: str = "") -> str:
    between = last.replace(" and", ",")
    head = between.join(names[:-1])
    return first + (f"{head}{last}{names[-1]}" if head else names[-1])


def _spelt(text: str) -> str:
    return " ".join(_MISSPELT.get(word, word) for word in text.split())


_LOOKS = r"(?P<word>healthy|unhealthy|normal|abnormal)(?: appearing)?"
_SIDE = r"(?:side of |part of )?(?P<thing>lung|lobe|hemisphere|chest)"

_OPEN: tuple[tuple[str, Rule], ...] = (
    (r".*\bplane\b.*", _plane),
    (r".*\bmr weighting\b.*|what type of mri .*|.* t1(?: weighted)? or t2(?: weighted)?.*", _weighting),
    (r"what diseases? (?:are|is/are) (?:included|shown) in (?:the|this) (?:picture|image)", _finding),
    (rf"what disease is/are shown (?:in|on|about) the (?P<place>[\w ]+?){_HERE}", _finding),
    (r"which organ is (?P<word>abnormal|normal), ?(?P<choices>.+)", _which_is),
    (rf"which {_SIDE} is (?P<word>abnormal|normal){_HERE}(?:, ?left or right)?", _which_is),
    (r"(?:which|what) part of the (?:human )?body .*|where does the (?:picture|image) (?:show|represent).*", _part),
    (r"which part do the organs .*|(?:what|which)(?: is the)? organ system .*", _part),
    (rf"where (?:is/are|are/is|is|are) {_THING}(?: located| existing)?(?: in the lung)?{_HERE}(?:, ?.+)?", _where),
    (rf"(?:what|which) part of the \w+ is {_THING} located in{_HERE}", _where),
    (rf"which place does {_THING} locate{_HERE}", _where),
    (rf"what is the (?P<thing>(?:largest|main|center|rightmost|leftmost|lower right) organ){_HERE}", _organ),
    (rf"what is the (?P<thing>organ (?:located )?(?:on|in) the .+?){_HERE}", _organ),
    (r"what organ is the (?P<thing>(?:gray|black|white|dark) .+)", _organ),
    (rf"which organs appear in pairs{_HERE}", _pairs),
    (rf"which is (?:the )?(?P<word>bigger|biggest|smaller|smallest){_HERE}, ?(?P<choices>.+)", _compared),
    (
        r"how many (?:existing )?(?P<thing>(?:kinds of )?\w+(?: \w+)?)"
        r"(?: are there| are shown| have existed| does the image have)?(?: in (?:this|the) image)?",
        _count,
    ),
    (rf"what colou?r (?:does|do|is|are) {_THING}(?: show)?{_HERE}", _look),
    (rf"what is the (?:colou?r|shape) of {_THING}{_HERE}", _look),
    (rf"what density is {_THING}", _look),
    (rf"is {_THING} (?:hyperdense or hypodense|white or gray relative to other tissues)", _look),
)
_CLOSED: tuple[tuple[str, Rule], ...] = (
    (rf"is this (?:a )?(?P<plane>{'|'.join(_PLANES)}) (?:plane|section)", _plane),
    (r"is this an mri image with (?P<weight>t1|t2) weighted", _weighting),
    (rf"(?:is|are|does|do) (?:the |this )?(?P<thing>[\w ]+?)(?: look)? {_LOOKS}{_HERE}", _health),
    (r"is/are there abnormalities in the patient's (?P<place>[\w ]+)", _any_finding),
    (rf"are there abnormalities{_HERE}|does the patient have any abnormalities", _any_finding),
    (r"does (?:the|this) patient have (?P<thing>[\w ]+)", _finding),
    (rf"can (?P<thing>[\w -]+?) be observed(?: on the (?P<place>[\w ]+?))?{_HERE}", _finding),
    (r"do the organs in the image exist in the (?P<thing>[\w ]+)", _part),
    (r"is this a study of the (?P<thing>[\w ]+)", _part),
    (r"does the picture contain (?P<thing>(?!the )[\w ]+)", _contains),
    (rf"(?:does|do) {_THING} (?:appear|exist){_HERE}", _contains),
    (rf"(?:is|are|are/is|is/are) there (?!some ){_THING} in (?:the|this) (?:image|picture)", _contains),
    (r"is the (?P<thing>[\w ]+) enhancing", _look),
)
_RULES = tuple(
    (re.compile(pattern), closed, rule)
    for closed, rules in ((False, _OPEN), (True, _CLOSED))
    for pattern, rule in rules
)
