"""VQA-Med-2019 (Ben Abacha et al., CLEF 2019): questions about modality, plane, organ and abnormality."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from datamodules.answers import normalize_answer
from datamodules.arguments import Unpack
from datamodules.files import read_lines
from datamodules.image_files import image_folder
from datamodules.problems import Problems
from datamodules.questions import VQARecord
from datamodules.records import Split
from datamodules.split_names import find_splits, split_of
from datamodules.vqa import VQAArguments, VQADataModule
from umd.files import UserError

Category = Literal["modality", "plane", "organ", "abnormality"]

CATEGORIES: tuple[Category, ...] = get_args(Category)
DEFAULT_CATEGORIES: tuple[Category, ...] = ("modality", "plane", "organ")
"""Without abnormality, as the field does it: nearly every abnormality has an answer of its own."""

FOLDERS = ("ImageClef-2019-VQA-Med-Training", "ImageClef-2019-VQA-Med-Validation", "VQAMed2019Test")
"""The folders as published; the shorter form is train/, val/ and test/."""

IMAGE_FOLDERS: dict[Split, str] = {
    "train": "Train_images",
    "validation": "Val_images",
    "test": "VQAMed2019_Test_Images",
}
SHORT_IMAGE_FOLDER = "images"
TEST_FILE = "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
QUESTIONS_ALONE = "VQAMed2019_Test_Questions.txt"
"""The test questions without answers and without categories."""

SEVERAL = "#"
"""Between the answers of a test question that has several."""


def split_of_folder(name: str) -> Split | None:
    """The split that a folder of the published names, or of the shorter ones, stands for."""
    return split_of(name.lower().removeprefix("imageclef-2019-vqa-med-").removeprefix("vqamed2019").lstrip("-_"))


class VQAMed2019(VQADataModule):
    """VQA-Med-2019; its splits share no image, and validation is its own under both protocols.

    Without abnormality, 9,600 questions about 3,200 images in train, 1,500 about 500 in validation, 375 about 375
    in test. A question is closed if its answer is yes or no. Nine test questions about organs list several
    answers ("a#b"); such a list is compared as a whole, so a model that gives one of them counts as wrong;
    `description` says how many there are. A test folder with VQAMed2019_Test_Questions.txt alone has no answers, and
    no categories either: all of its questions are asked.

    Args:
        root: Folder with `ImageClef-2019-VQA-Med-Training/`, `ImageClef-2019-VQA-Med-Validation/` and
            `VQAMed2019Test/`, or with `train/`, `val/` and `test/`, which hold the same files; their images may
            also be in `images/`. Other names of splits (valid/, ...) are taken, too.
        categories: Of "modality", "plane", "organ" and "abnormality", those to use; None: the first three.
        **vqa: As in `VQADataModule`; `validation_fraction` is only used where the validation folder is missing.

    Raises:
        UserError: An argument is out of its range.
    """

    title = "VQA-Med-2019"
    layout = ", ".join(f"{name}/ (or {short}/)" for name, short in zip(FOLDERS, ("train", "val", "test"), strict=True))

    def __init__(
        self,
        root: str,
        *,
        categories: list[Category] | None = None,
        **vqa: Unpack[VQAArguments],
    ) -> None:
        chosen = DEFAULT_CATEGORIES if categories is None else tuple(categories)
        if not chosen or not set(chosen) <= set(CATEGORIES):
            raise UserError(f"categories must be some of {', '.join(CATEGORIES)}, not {list(chosen)}")
        super().__init__(root, **vqa)
        self.categories: tuple[Category, ...] = tuple(category for category in CATEGORIES if category in chosen)

    def read_published(self, problems: Problems) -> dict[Split, list[VQARecord]]:
        """Reads the splits whose folders are there.

        Raises:
            UserError: None of them is, two stand for one split, or a folder lacks its file of questions.
        """
        folders = find_splits(self.root, problems, ending="", named=split_of_folder)
        if not folders:
            raise self.nothing_found()
        return {split: self._read_split(split, folder, problems) for split, folder in folders.items()}

    @property
    def description(self) -> dict[str, str]:
        """As in `VQADataModule`, with the categories and the number of lists of answers."""
        rest = super().description
        description = {"data": rest.pop("data"), "categories": ", ".join(self.categories), **rest}
        if lists := sum(SEVERAL in record.answer for record in self._usable.get("test", ())):
            description["test questions with several answers, compared as a whole"] = str(lists)
        if "test" in self._usable and not any(record.question_type for record in self._usable["test"]):
            description["test categories"] = "not given, all test questions are asked"
        return description

    def _read_split(self, split: Split, folder: Path, problems: Problems) -> list[VQARecord]:
        images = f"{folder.name}/{image_folder(folder, IMAGE_FOLDERS[split], SHORT_IMAGE_FOLDER)}"
        if split == "test" and not (folder / TEST_FILE).is_file() and (folder / QUESTIONS_ALONE).is_file():
            return _questions_alone(folder / QUESTIONS_ALONE, images, problems)
        records = []
        for where, category, line in self._lines(split, folder, problems):
            parts = [part.strip() for part in line.split("|")]
            answer = normalize_answer(parts[-1])
            if len(parts) != 3 or not parts[0]:
                problems.add("line that is not image|question|answer, left out", where)
            elif not parts[1]:
                problems.add("line without a question, left out", where)
            elif answer is None:
                problems.add("line without an answer, left out", where)
            else:
                image = f"{images}/{parts[0]}.jpg"
                closed = answer in ("yes", "no")
                records.append(VQARecord(f"{category}/{parts[0]}", image, parts[1], answer, closed, category))
        return records

    def _lines(self, split: Split, folder: Path, problems: Problems) -> list[tuple[str, Category, str]]:
        """The lines of the chosen categories, as "file:number", category and image|question|answer."""
        if split == "test":
            return self._test_lines(existing(folder / TEST_FILE), problems)
        return [
            (where, category, line)
            for number, category in enumerate(CATEGORIES, start=1)
            if category in self.categories
            for where, line in read_lines(
                _category_file(folder / "QAPairsByCategory", f"C{number}_{category.capitalize()}_", split), problems
            )
        ]

    def _test_lines(self, path: Path, problems: Problems) -> list[tuple[str, Category, str]]:
        lines = []
        for where, line in read_lines(path, problems):
            image, _, rest = line.partition("|")
            name, _, rest = rest.partition("|")
            category = next((known for known in CATEGORIES if known == name.strip().lower()), None)
            if category is None:
                problems.add(f"line whose category is none of {', '.join(CATEGORIES)}, left out", where)
            elif category in self.categories:
                lines.append((where, category, f"{image}|{rest}"))
        return lines


def _questions_alone(path: Path, images: str, problems: Problems) -> list[VQARecord]:
    """The test questions without answers, from lines image|question."""
    records = []
    for where, line in read_lines(path, problems):
        name, _, question = (part.strip() for part in line.partition("|"))
        if not name or not question:
            problems.add("line that is not image|question, left out", where)
        else:
            records.append(VQARecord(name, f"{images}/{name}.jpg", question, "", closed=False, question_type=""))
    return records


def _category_file(folder: Path, beginning: str, split: Split) -> Path:
    """C1_Modality_train.txt and the like, whichever name of the split it ends with.

    Raises:
        UserError: There is none, or several.
    """
    found = [
        path for path in sorted(folder.glob(f"{beginning}*.txt")) if split_of(path.stem[len(beginning) :]) == split
    ]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise UserError(f"{folder} holds {names}, which both stand for the {split} split: keep one")
    return existing(found[0] if found else folder / f"{beginning}{'train' if split == 'train' else 'val'}.txt")


def existing(path: Path) -> Path:
    """The same path.

    Raises:
        UserError: There is no such file.
    """
    if not path.is_file():
        raise UserError(f"{VQAMed2019.title}: there is no {path.name} in {path.parent}")
    return path
