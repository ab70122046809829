"""What a data set of questions holds that makes its test easier than it looks, from its annotations alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from datamodules.answers import ceiling
from datamodules.images import ImageFile, is_inside
from datamodules.leaks import published_id
from datamodules.problems import Problems
from datamodules.questions import VQARecord, with_unique_ids
from datamodules.records import Split
from datamodules.rewordings import LEAST, NEAR, Rewording, find_rewordings, pair
from datamodules.summary import per_cent
from datamodules.vqa import VQADataModule

TWINS, REPEATED, IMAGES, ANSWERS = (
    "twins.csv",
    "repeated.csv",
    "images_in_several_splits.csv",
    "answers_outside_train.csv",
)

Splits = Mapping[Split, Sequence[VQARecord]]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        facts: Counts, and shares in per cent, as plain values.
        files: Every case, a row each, by the file that it belongs in.
    """

    facts: dict[str, Any]
    files: dict[str, list[dict[str, Any]]]


def audit(data: VQADataModule) -> Audit:
    """Looks through the splits as published (with the training rows of the protocol, twins included).

    No image is decoded, and none need be there; which names are of one image: `same_images`.

    Raises:
        UserError: The annotations are not there.
    """
    data.has_split("train")  # a copy of the hub is fetched by this
    problems = Problems(data.title)
    splits = {split: with_unique_ids(rows, problems) for split, rows in data.read_published(problems).items()}
    splits = {split: splits[split] for split in get_args(Split) if splits.get(split)}
    problems.warn()
    names = dict.fromkeys(record.image for rows in splits.values() for record in rows)
    images = {name: _file(data, name) for name in names}
    one_of = same_images(images)
    named: Splits = {
        split: [replace(record, image=one_of.get(record.image, record.image)) for record in rows]
        for split, rows in splits.items()
    }
    files: dict[str, list[dict[str, Any]]] = {TWINS: []}
    between = []
    for first, second in combinations(named, 2):
        found = find_rewordings(named[first], named[second])
        between.append({"from": first, "to": second, **_between(named[first], named[second], found)})
        files[TWINS] += _twin_rows(first, second, splits, found)
        if first == "train":
            between[-1]["answers"] = _answers(named[first], named[second], found)
    files |= {REPEATED: _repeated_rows(named, splits), IMAGES: _image_rows(named), ANSWERS: _outside_rows(splits)}
    facts = {
        "images": len(names) - len(one_of),
        "image_files": sum(file is not None for file in images.values()),
        "further_names_of_images": len(one_of),
        "twin_similarity": {"least": NEAR, "least_where_nearest": LEAST},
        "splits": {split: _within(rows) for split, rows in named.items()},
        "between": between,
    }
    return Audit(facts, files)


def same_images(files: Mapping[str, ImageFile | None]) -> dict[str, str]:
    """For each name of an image that one before it has another name of, that one.

    Two names are of one image if they hold the same published number (`datamodules.leaks`), or their files are equal;
    None: there is no file. Files are read where another one has their size.
    """
    sizes = Counter(file.stat().st_size for file in files.values() if isinstance(file, Path))
    first: dict[str, str] = {}
    found = {}
    for name, file in files.items():
        marks = [published_id(name)]
        if isinstance(file, Path):
            if sizes[file.stat().st_size] > 1:
                with file.open("rb") as opened:
                    marks.append(hashlib.file_digest(opened, "sha256").hexdigest())
        elif file is not None:
            marks.append(file.digest)
        known = {first[mark]: None for mark in marks if mark in first}
        one = next(iter(known), name)
        for mark in marks:
            if mark is not None:
                first.setdefault(mark, one)
        if one != name:
            found[name] = one
    return found


def _file(data: VQADataModule, image: str) -> ImageFile | None:
    """The file of an image, if it is there."""
    file = data.locate(image) if is_inside(image) else None
    return None if isinstance(file, Path) and not file.is_file() else file


def _within(rows: Sequence[VQARecord]) -> dict[str, int]:
    """The counts of a split."""
    asked: dict[tuple[str, str], list[VQARecord]] = defaultdict(list)
    for record in rows:
        asked[pair(record)].append(record)
    return {
        "rows": len(rows),
        "images": len({record.image for record in rows}),
        "distinct_questions": len({question for _, question in asked}),
        "repeated_rows": len(rows) - len(asked),
        "repeated_pairs_that_disagree": sum(_disagree(same) for same in asked.values()),
        "rows_without_answer": sum(not record.accepted for record in rows),
        "distinct_answers": len({record.answer for record in rows if record.accepted}),
    }


def _disagree(rows: Iterable[VQARecord]) -> bool:
    """Whether no answer is accepted by all of those that have one."""
    accepted = [set(record.accepted) for record in rows if record.accepted]
    return bool(accepted) and not set.intersection(*accepted)


def _between(first: Sequence[VQARecord], second: Sequence[VQARecord], found: Sequence[Rewording]) -> dict[str, Any]:
    """What two splits share; `twins` are rows of the first, `with_twin` those of the second that have one."""
    shared = {record.image for record in first} & {record.image for record in second}
    asked = {pair(record) for record in first}
    twins, best = {one.train for one in found}, _best(found)
    right = [bool(set(first[one.train].accepted) & set(second[place].accepted)) for place, one in best.items()]
    facts: dict[str, Any] = {
        "rows": len(second),
        "images": len({record.image for record in second}),
        "shared_images": len(shared),
        "on_shared_images": per_cent(record.image in shared for record in second),
        "repeated_pairs": sum(pair(record) in asked for record in second),
        "twins": len(twins),
        "with_twin": len(best),
        "with_twin_share": 100 * len(best) / len(second),
        "with_twin_of_the_same_answer": sum(right),
    }
    if marked := {place for place, record in enumerate(first) if record.has_twin}:
        facts |= {"marked_twins": len(marked), "marked_twins_found": len(marked & twins)}
    return facts


def _best(found: Sequence[Rewording]) -> dict[int, Rewording]:
    """The most similar training row of each held-out row that has one."""
    best: dict[int, Rewording] = {}
    for one in sorted(found, key=lambda one: (one.held_out, -one.similarity, one.train)):
        best.setdefault(one.held_out, one)
    return best


def _answers(
    train: Sequence[VQARecord], held_out: Sequence[VQARecord], found: Sequence[Rewording]
) -> list[dict[str, Any]]:
    """What the training answers can reach in a held-out split, with all training rows and with fewer of them."""
    twins, seen = {one.train for one in found}, {record.image for record in held_out}
    kept = {
        "ceiling": train,
        "ceiling_without_twins": [record for place, record in enumerate(train) if place not in twins],
        "ceiling_without_shared_images": [record for record in train if record.image not in seen],
    }
    answers = {name: {record.answer for record in rows if record.accepted} for name, rows in kept.items()}
    counted = [record for record in held_out if record.accepted]
    groups = {
        "overall": counted,
        "open": [record for record in counted if not record.closed],
        "closed": [record for record in counted if record.closed],
    }
    return [
        {
            "group": name,
            "rows": len(rows),
            "outside_train": sum(answers["ceiling"].isdisjoint(record.accepted) for record in rows),
            **{key: ceiling([record.accepted for record in rows], known) for key, known in answers.items()},
        }
        for name, rows in groups.items()
        if rows
    ]


def _twin_rows(first: Split, second: Split, splits: Splits, found: Sequence[Rewording]) -> list[dict[str, Any]]:
    rows = []
    for one in found:
        here, there = splits[first][one.train], splits[second][one.held_out]
        rows.append(
            {
                "split": first,
                "id": here.sample_id,
                "image": here.image,
                "question": here.question,
                "answer": _said(here),
                "other_split": second,
                "other_id": there.sample_id,
                "other_image": there.image,
                "other_question": there.question,
                "other_answer": _said(there),
                "similarity": round(one.similarity, 3),
                "equal_words": one.equal,
                "marked": here.has_twin,
            }
        )
    return rows


def _repeated_rows(named: Splits, splits: Splits) -> list[dict[str, Any]]:
    """The rows of each pair of image and question that occurs again, in one split or in two."""
    asked: dict[tuple[str, str], list[tuple[Split, VQARecord]]] = defaultdict(list)
    for split, rows in named.items():
        for record, published in zip(rows, splits[split], strict=True):
            asked[pair(record)].append((split, published))
    repeated = [same for same in asked.values() if len(same) > 1]
    return [
        {
            "pair": number,
            "split": split,
            "id": record.sample_id,
            "image": record.image,
            "question": record.question,
            "answer": _said(record),
            "disagree": _disagree(one for _, one in same),
        }
        for number, same in enumerate(repeated, 1)
        for split, record in same
    ]


def _image_rows(named: Splits) -> list[dict[str, Any]]:
    counts = {split: Counter(record.image for record in rows) for split, rows in named.items()}
    images = dict.fromkeys(image for count in counts.values() for image in count)
    return [
        {"image": image, **{f"{split}_rows": count[image] for split, count in counts.items()}}
        for image in images
        if sum(image in count for count in counts.values()) > 1
    ]


def _outside_rows(splits: Splits) -> list[dict[str, Any]]:
    known = {record.answer for record in splits.get("train", ()) if record.accepted}
    return [
        {
            "split": split,
            "id": record.sample_id,
            "image": record.image,
            "question": record.question,
            "closed": record.closed,
            "answer": _said(record),
        }
        for split, rows in splits.items()
        if split != "train" and known
        for record in rows
        if record.accepted and known.isdisjoint(record.accepted)
    ]


def _said(record: VQARecord) -> str:
    return record.published_answer or record.answer
