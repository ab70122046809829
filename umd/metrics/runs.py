"""Tested runs, and which of them are one configuration under several seeds."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

from umd.files import UserError
from umd.metrics.predictions import (
    answers_of,
    check_agreement,
    images_of,
    question_groups,
    read_predictions,
    same_samples,
)
from umd.metrics.seeds import Measured, measured, reported
from umd.protocols import UNKNOWN


@dataclass(frozen=True, eq=False)
class Run:
    """A run's test.

    Attributes:
        label: its name in tables.
        results: what `results.json` holds: an `umd.protocols.Results` or, from before there was a schema, a `Report`.
        predictions: the outcome of each test sample; None where the test left none.
    """

    label: str
    results: dict[str, Any]
    predictions: pd.DataFrame | None

    @property
    def title(self) -> str:
        """The title of its table; one from before the training's protocol was noted says that it is not known."""
        title = str(self.results["title"])
        if "schema" not in self.results and "protocol" in title:
            title += f" (of the test; training protocol {UNKNOWN})"
        return title

    @property
    def seed(self) -> int | None:
        """Of its training; None where it was not noted."""
        training = self.results.get("training") or {}
        seed: int | None = training.get("seed")
        return seed

    def configuration(self) -> tuple[Any, ...] | None:
        """What runs that differ in their seeds alone have in common; None where that was not noted.

        The settings of the training and of all behind it, which checkpoint it is (the best or the last), and what it
        was tested on.
        """
        results = self.results
        trainings = [results.get("training"), *results.get("init_from", [])]
        settings = [training and training["settings"] for training in trainings]
        if None in settings or results["checkpoint"] is None or self.seed is None:
            return None
        test = results["test"] or {}
        tested = (test.get("data_class"), test.get("data"), test.get("protocol"), str(results["limits"]))
        return (*settings, Path(results["checkpoint"]["path"]).name, *tested)


@dataclass(frozen=True, eq=False)
class Configuration:
    """Runs that differ in their seeds alone; one run, where no other is like it."""

    label: str
    runs: tuple[Run, ...]

    @property
    def predictions(self) -> list[pd.DataFrame] | None:
        """Each run's outcomes of the same samples; None where they are not all at hand, or of different samples."""
        tables = [run.predictions for run in self.runs if run.predictions is not None]
        return tables if len(tables) == len(self.runs) and same_samples(tables) else None

    def measured(self) -> dict[str, Measured]:
        """Each metric over the seeds, by the name of its row; what is undefined is left out.

        Raises:
            UserError: the predictions beside a report are not its own.
        """
        name, count, value = self.runs[0].results["columns"][:3]
        reports = [{row[name]: row for row in run.results["rows"]} for run in self.runs]
        names = [key for key in reports[0] if all(key in report for report in reports)]
        found = {key: reported([report[key] for report in reports], value, count) for key in names}
        tables = self.predictions
        if tables is not None:
            correct, images = answers_of(tables), images_of(tables[0])
            for key, members in question_groups(tables[0]).items():
                if found.get(key) is None:
                    continue
                for run, report, row in zip(self.runs, reports, correct, strict=True):
                    check_agreement(run.label, report[key][value], row[members], key)
                there = None if images is None else images[members]
                found[key] = measured(correct[:, members], there, reports[0][key].get("ceiling"))
        return {key: metric for key, metric in found.items() if metric is not None}


def read_run(path: Path, label: str) -> Run:
    """What a run's test left.

    Args:
        path: the run's folder, or its `results.json`.
        label: its name in tables.

    Raises:
        UserError: the run has no test results, or its test had nothing to compare with.
    """
    if not path.exists():
        raise UserError(f"there is no run '{path}'")
    file = path if path.suffix == ".json" else path / "results.json"
    if path.is_file() and path.suffix != ".json":
        raise UserError(f"'{path}' is a file: give the folder of a test; umd score compares files of answers")
    if not file.is_file():
        raise UserError(f"'{path}' has no results.json: test it first, on data with a test split (umd test)")
    results = json.loads(file.read_text(encoding="utf-8"))
    if not results["rows"]:
        raise UserError(f"'{path}' was tested on data that does not say what is true: there is nothing to compare")
    return Run(label, results, read_predictions(file.parent))


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """The runs, those that differ in their seeds alone together; two of one seed are no two seeds, and stay apart."""
    together: dict[object, list[Run]] = {}
    for run in runs:
        together.setdefault(run.configuration() or run.label, []).append(run)
    found: list[Configuration] = []
    taken: set[str] = set()
    for group in together.values():
        if len({run.seed for run in group}) == len(group):
            found.append(Configuration(_common_name([run.label for run in group], taken), tuple(group)))
            taken.add(found[-1].label)
        else:
            found += [Configuration(run.label, (run,)) for run in group]
    return found


def _common_name(labels: Sequence[str], taken: Container[str]) -> str:
    """What the labels have in common, a star where they differ; all of them where that says too little."""
    if len(labels) == 1:
        return labels[0]
    start = _common_start(labels)
    end = _common_start([label[len(start) :][::-1] for label in labels])[::-1]
    name = f"{start}*{end}"
    return ", ".join(labels) if name == "*" or name in taken else name


def _common_start(texts: Sequence[str]) -> str:
    columns = zip(*texts, strict=False)
    return "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, columns))
