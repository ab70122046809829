"""A data set's questions for the referee: read by its data module, without looking at an image."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from umd.commands.configs import shipped_folder
from umd.commands.imports import importing
from umd.commands.tool_parser import did_you_mean
from umd.files import UserError

if TYPE_CHECKING:
    import pandas as pd

    from datamodules.questions import VQARecord
    from datamodules.vqa import VQADataModule
    from umd.scoring.questions import Questions

Picture: TypeAlias = Callable[[str], str | None]

PICTURE_SIDE: Final = 320
"""The longer side of a picture in a report, in pixels."""

SOURCES: Final = {
    "VQA-RAD": "VQA-RAD: Lau, Gayen, Ben Abacha, Demner-Fushman. A dataset of clinically generated visual questions "
    "and answers about radiology images. Scientific Data 5, 2018.",
    "SLAKE": "SLAKE: Liu, Zhan, Xu, Ma, Yang, Wu. SLAKE: A semantically-labeled knowledge-enhanced dataset for "
    "medical visual question answering. ISBI 2021.",
    "VQA-Med-2019": "VQA-Med-2019: Ben Abacha, Hasan, Datla, Liu, Demner-Fushman, Mueller. VQA-Med: Overview of the "
    "medical visual question answering task at ImageCLEF 2019. CLEF 2019.",
}
"""Where data sets are published, by their titles."""


def data_arguments(data: str | None, root: str | None, options: Sequence[str], run: Path | None) -> list[str]:
    """What `umd data` would be told of the data set.

    Args:
        data: name of a config below `configs/data/`, a path of one, or a class; None: what the run was tested on.
        root: folder of the data set; None: that of the config.
        options: what else was typed, `--data.KEY VALUE`.
        run: the folder of a run whose config says which data set; None: there is none.

    Raises:
        UserError: nothing says which data set, or there is none of that name.
    """
    if data is None:
        named = None if run is None else _of_run(run)
        if named is None:
            raise UserError(
                "the answers of which data set? Say --data NAME, such as vqa_rad (configs/data/NAME.yaml), "
                "and --root FOLDER"
            )
        arguments = [f"--config={json.dumps({'data': named})}"]
    elif data[:1].isupper() or "." in data.removesuffix(".yaml"):
        arguments = ["--data", data]
    else:
        arguments = ["--config", data if data.endswith(".yaml") else _config_of(data)]
    if root is not None:
        arguments += ["--data.root", root]
    return [*arguments, *options]


def _config_of(name: str) -> str:
    """The config of a data set that is named without folder and ending, in `configs/data/` here or among umd's own."""
    path = f"configs/data/{name}.yaml"
    own = {file.stem for file in (shipped_folder() / "data").glob("*.yaml")}
    if name not in own and not Path(path).is_file():
        meant = did_you_mean(name, own) or f"; there are {', '.join(sorted(own))}"
        raise UserError(f"--data: there is no {path}{meant}")
    return path


def without_data_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own arguments, and the options of the data set among them (`--data.KEY VALUE`).

    Raises:
        UserError: an option of the data set has no value.
    """
    own: list[str] = []
    of_data: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--data."):
            own.append(argument)
            continue
        of_data.append(argument)
        if "=" not in argument:
            value = next(rest, None)
            if value is None:
                raise UserError(f"{argument}: there is no value for it")
            of_data.append(value)
    return own, of_data


def _of_run(folder: Path) -> dict[str, Any] | None:
    """The part `data` of the config that lies in the run's folder, or above that of a test."""
    for place in (folder, folder.parent):
        path = place / "config.yaml"
        if path.is_file():
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get("data"), dict):
                return dict(content["data"])
    return None


def read_questions(arguments: Sequence[str], split: str, hold_out: bool) -> tuple[Questions, Picture]:
    """The questions of a split, with what can be answered without looking; and how to show an image of them.

    Args:
        arguments: as `data_arguments` gives them.
        split: "train", "validation" or "test".
        hold_out: whether images of train are held out for validation where the data set has no validation split, as
            our own trainings do, or count as train, as they are for others.

    Raises:
        UserError: no data set of questions, or it has no such split.
    """
    with importing():  # not above: these bring Lightning, and what is mistyped is said first
        from datamodules.baselines import fools
        from datamodules.vqa import VQADataModule
        from datamodules.vqa_groups import question_kinds
        from umd.commands.data import parse
        from umd.scoring.questions import Questions

    data = parse(list(arguments)).data
    if not isinstance(data, VQADataModule):
        raise UserError(f"{type(data).__name__} has no questions: umd score needs a data set of questions")
    if not hold_out:
        data.validation_fraction = 0
    data.prepare_data()
    splits = data.published()
    asked = next((rows for name, rows in splits.items() if name == split), None)
    if asked is None:
        raise UserError(f"{data.title}: no {split} split in {data.root} (there: {', '.join(splits) or 'none'})")
    train = splits.get("train", [])
    images = {record.image for record in train}
    reworded = [(record.sample_id, twin) for record in asked if (twin := data.twin_of(record)) is not None]
    twins = _table([twin for _, twin in reworded]).assign(of=[name for name, _ in reworded])
    title = f"{data.title}, protocol {data.protocol}, {split}"
    notes = [f"train, for who does not look at the image: {len(train):,} questions about {len(images):,} images"]
    notes += [f"{key}: {value}" for key, value in data.description.items() if key not in ("data", "protocol", *splits)]
    tested = {record.image for record in asked}
    if tested <= images:
        notes.append("every image of these questions is in train")
    elif tested.isdisjoint(images):
        notes.append("no image of these questions is in train")
    sources = (SOURCES[data.title],) if data.title in SOURCES else ()
    if not train:
        notes = ["there is no training split, so nothing stands beside it"]
    beside = fools(train, asked) if train else {}
    groups = question_kinds(train, asked)
    return Questions(title, _table(asked), groups, beside, twins, tuple(notes), sources), partial(_picture, data)


def _table(records: Sequence[VQARecord]) -> pd.DataFrame:
    """See `Questions.table`."""
    import pandas as pd  # not above: it takes a while, and what is mistyped is said first

    return pd.DataFrame(
        {
            "question_id": [record.sample_id for record in records],
            "image": [record.image for record in records],
            "question": [record.question for record in records],
            "accepted": [record.accepted for record in records],
            "closed": [record.closed for record in records],
            "has_twin": [record.has_twin for record in records],
        }
    )


def _picture(data: VQADataModule, image: str) -> str | None:
    """An image, scaled down, as a data address; None where it cannot be read."""
    from datamodules.images import ImageError, is_inside

    if not is_inside(image):
        return None
    try:
        picture = data.images.original(data.locate(image))
    except ImageError:
        return None
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
