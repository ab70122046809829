"""`umd answer`: a trained model's answers to questions about images."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umd import NOTICE
from umd.commands.imports import importing
from umd.commands.tool_parser import ToolParser
from umd.files import UserError, writing

if TYPE_CHECKING:
    from umd.inference import ImageCheck, Model, Reply

ENDINGS = (".bmp", ".dcm", ".dicom", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What is an image in a folder; a file that is named is read whatever its ending."""

BAR = 20
"""Characters of a bar that stands for certainty."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One image with one text (a question; for classification, what is known beside the image)."""

    image: Path
    text: str


def main(arguments: list[str]) -> None:
    """Print, for each image and question, the likeliest answers, and what they owe to the image."""
    given = parser().parse_args(arguments)
    asks, texts, others = check(given)
    from umd.commands.messages import show_messages  # only now: what follows imports torch, which takes seconds
    from umd.inference import load

    show_messages()
    with importing():
        model = load(given.ckpt_path, device=given.device)
    check_task(model, asks, texts, given)
    broken = unreadable(model, [ask.image for ask in asks])
    if len(broken) == len({ask.image for ask in asks}):
        raise UserError("; ".join(broken.values()))
    whole = [place for place, ask in enumerate(asks) if ask.image not in broken]
    asks, others = [asks[place] for place in whole], others and [others[place] for place in whole]
    records = ranked_texts(model, asks, texts, given) if texts else answers(model, asks, others, given)
    if given.json:
        sys.stdout.write(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    else:
        remarks = [model.settings.remark] if model.settings.remark else []
        sys.stdout.write("\n".join([*map(as_text, records), *remarks, NOTICE, ""]))
    if broken:
        sys.stdout.flush()
        sys.stderr.write("".join(f"umd: not answered: {why}\n" for why in broken.values()))
        raise SystemExit(1)


def parser() -> ToolParser:
    """The command's options."""
    made = ToolParser(
        prog="umd answer",
        description="Ask a trained model about an image. Below each answer stands how much it owes to the image: what "
        "the same question gets with a blank one. Images that cannot be read are named at the end, with exit code 1; "
        "the others are answered.",
        epilog=f"{NOTICE} Images, questions and answers stay on this machine.",
    )
    made.add_argument(
        "--ckpt_path",
        "--model",
        required=True,
        metavar="FILE",
        help="a checkpoint, the folder of a run, or one that umd export wrote",
    )
    made.add_argument(
        "--image", nargs="+", type=Path, default=[], metavar="FILE", help="images (DICOM too), or folders of them"
    )
    made.add_argument("--question", action="append", default=[], metavar="TEXT", help="may be given several times")
    made.add_argument(
        "--csv", type=Path, metavar="FILE", help="questions with columns image (relative to the file) and question"
    )
    made.add_argument("--text", default="", help="of a classification model: what is known beside the image")
    made.add_argument(
        "--texts", nargs="+", default=[], metavar="TEXT", help="of a retrieval model: texts to rank, or a file of lines"
    )
    made.add_argument("--top", type=int, default=5, metavar="N", help="how many answers (default: 5)")
    made.add_argument("--json", action="store_true", help="print JSON: a list with an object for each question")
    made.add_argument(
        "--show",
        type=Path,
        metavar="PNG",
        help="draw where the answer looks into this file; of several questions into PNG_1, PNG_2, ...",
    )
    made.add_argument(
        "--method",
        choices=("attention", "gradient"),
        default="attention",
        help="of --show: attention, rolled out (default), or integrated gradients, for any encoder (extra 'explain')",
    )
    made.add_argument(
        "--other_image",
        type=Path,
        metavar="FILE",
        help="an image of another patient, or a folder of them, to ask the same question of",
    )
    made.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    made.add_argument(
        "--batch_size", type=int, default=32, metavar="N", help="questions computed at once (default: 32)"
    )
    return made


# Before torch is imported


def check(given: argparse.Namespace) -> tuple[list[Ask], list[str], list[Path] | None]:
    """What is asked, the texts to rank, and for each question another patient's image; None without.

    Raises:
        UserError: a file is not there or says nothing, or something is asked of no image.
    """
    if not Path(given.ckpt_path).expanduser().exists():
        raise UserError(f"there is no checkpoint '{given.ckpt_path}'")
    for name in ("top", "batch_size"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name} is {getattr(given, name)}; it must be at least 1")
    if given.csv is not None and (given.image or given.question):
        raise UserError("--csv names images and questions itself: give it without --image and --question")
    if any(not question.strip() for question in given.question):
        raise UserError("--question: it is empty")
    if given.show is not None and not given.show.absolute().parent.is_dir():
        raise UserError(f"--show: there is no folder '{given.show.parent}'")
    if given.csv is not None:
        asks = from_csv(given.csv)
    else:
        asks = [Ask(image, text) for image in images_in(given.image) for text in given.question or [given.text]]
    if not asks:
        raise UserError("which image? Give --image FILE, a folder of images, or --csv FILE")
    others = None
    if given.other_image is not None:
        found = images_in([given.other_image])
        others = [another_than(ask.image, found) for ask in asks]
    return asks, lines_in(given.texts), others


def images_in(given: Sequence[Path]) -> list[Path]:
    """Image files as they are, folders as the images in them, sorted.

    Raises:
        UserError: one is not there, or a folder holds no image.
    """
    images: list[Path] = []
    for path in (path.expanduser() for path in given):
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
            if not found:
                raise UserError(f"the folder '{path}' holds no image ({', '.join(ENDINGS)})")
            images += found
        elif path.is_file():
            images.append(path)
        else:
            raise UserError(f"there is no image '{path}'")
    return images


def from_csv(path: Path) -> list[Ask]:
    """The questions of a table.

    Raises:
        UserError: it is not there, is no table of text, lacks a column, or has a row without question or image.
    """
    try:
        with path.expanduser().open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--csv: '{path}' cannot be read: {error}") from error
    if not rows or not {"image", "question"} <= rows[0].keys():
        held = ", ".join(rows[0]) if rows else "no row"
        raise UserError(f"--csv: '{path}' must have the columns image and question, and rows; it has {held}")
    asks = []
    for number, row in enumerate(rows, start=2):
        question, image = (row["question"] or "").strip(), path.expanduser().parent / (row["image"] or "")
        if not question or not image.is_file():
            why = f"there is no image '{image}'" if question else "it has no question"
            raise UserError(f"--csv: '{path}', line {number}: {why}")
        asks.append(Ask(image, question))
    return asks


def lines_in(texts: Sequence[str]) -> list[str]:
    """Texts as they are; a single one that is a file as its lines."""
    if len(texts) != 1 or not Path(texts[0]).is_file():
        return list(texts)
    try:
        lines = Path(texts[0]).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--texts: '{texts[0]}' cannot be read: {error}") from error
    kept = [line.strip() for line in lines if line.strip()]
    if not kept:
        raise UserError(f"--texts: '{texts[0]}' is empty")
    return kept


def another_than(image: Path, others: Sequence[Path]) -> Path:
    """The first of the others that is another file.

    Raises:
        UserError: there is none.
    """
    found = next((other for other in others if other.resolve() != image.resolve()), None)
    if found is None:
        raise UserError(f"--other_image: '{image}' is the image itself; give one of another patient")
    return found


# With the model


def check_task(model: Model, asks: Sequence[Ask], texts: Sequence[str], given: argparse.Namespace) -> None:
    """Refuse what this model is not there for.

    Raises:
        UserError: says which option it wants, or cannot use.
    """
    task, stage = model.settings.task, f"'{given.ckpt_path}' ({model.settings.stage})"
    if task == "pretraining":
        raise UserError(f"{stage} has no answers yet: they come with fine-tuning (umd fit --config configs/vqa.yaml)")
    wants = {"answering": "--question", "classification": "--text", "retrieval": "--texts"}[task]
    asked = {"--question": bool(given.question or given.csv), "--text": bool(given.text), "--texts": bool(texts)}
    wrong = [name for name, is_there in asked.items() if is_there and name != wants]
    if wrong:
        raise UserError(f"{stage} is for {task}: it takes {wants}, not {wrong[0]}")
    if task != "classification" and not asked[wants]:
        raise UserError(f"{stage} is for {task}: what is asked? Give {wants}")


def unreadable(model: Model, images: Sequence[Path]) -> dict[Path, str]:
    """The images that cannot be read, and why."""
    broken: dict[Path, str] = {}
    for image in dict.fromkeys(images):
        try:
            model.preparation.image(image)
        except UserError as error:
            broken[image] = str(error)
    return broken


def answers(
    model: Model, asks: Sequence[Ask], others: list[Path] | None, given: argparse.Namespace
) -> list[dict[str, Any]]:
    """A plain record of each question: its answers, and what they owe to the image."""
    images, texts = [ask.image for ask in asks], [ask.text for ask in asks]
    checks = model.check_image(images, texts, other=others, top=given.top, batch_size=given.batch_size)
    records = []
    for number, found in enumerate(checks, start=1):
        record = as_record(model, found.reply)
        stand_ins = {"blank_image": found.blank, "other_image": found.other}
        record |= {name: as_record(model, reply) for name, reply in stand_ins.items() if reply is not None}
        record["owes_to_the_image"] = str(found)
        if given.show is not None:
            record["picture"] = str(
                show(model, asks[number - 1], found, numbered(given.show, number, len(asks)), given)
            )
        records.append(record)
    return records


def ranked_texts(
    model: Model, asks: Sequence[Ask], texts: Sequence[str], given: argparse.Namespace
) -> list[dict[str, Any]]:
    """A plain record of each image: the texts that go with it best."""
    records = []
    for number, ask in enumerate(asks, start=1):
        reply = model.rank(ask.image, list(texts), top=given.top, batch_size=given.batch_size)
        record = as_record(model, reply)
        if given.show is not None:
            best = Ask(ask.image, reply.best.text)
            record["picture"] = str(show(model, best, None, numbered(given.show, number, len(asks)), given))
        records.append(record)
    return records


def show(model: Model, ask: Ask, check: ImageCheck | None, path: Path, given: argparse.Namespace) -> Path:
    """Draw where the answer looks."""
    from umd.inference.picture import draw

    explanation = model.explain(ask.image, ask.text, method=given.method)
    with writing(path):
        draw(explanation, path, remark="" if check is None else str(check), shown=given.top)
    return path


def numbered(path: Path, number: int, of: int) -> Path:
    """The path of one of several pictures."""
    path = path if path.suffix else path.with_suffix(".png")
    return path if of == 1 else path.with_stem(f"{path.stem}_{number}")


def as_record(model: Model, reply: Reply) -> dict[str, Any]:
    """A reply in plain types."""
    called = {"answering": "question", "classification": "text"}.get(model.settings.task)
    return {
        "image": reply.image,
        **({called: reply.text} if called else {}),
        "answers": [
            {"answer": answer.text, "probability": answer.probability, "score": answer.score}
            for answer in reply.answers
        ],
        **({"cut": True} if reply.cut else {}),
    }


def as_text(record: dict[str, Any]) -> str:
    """A record for a reader: the question, its answers with bars, and what they owe to the image."""
    asked = record.get("question") or record.get("text")
    lines = [f"{record['image']}: {asked}" if asked else record["image"]]
    width = max(len(answer["answer"]) for answer in record["answers"])
    for answer in record["answers"]:
        bar = "#" * round(BAR * answer["probability"])
        lines.append(f"  {answer['answer']:<{width}}  {answer['probability']:.3f}  {bar}".rstrip())
    lines += [f"  {record['owes_to_the_image']}"] if "owes_to_the_image" in record else []
    lines += [f"  where it looks: {record['picture']}"] if "picture" in record else []
    return "\n".join([*lines, ""])
