"""Ours beside the paper's: a table as JSON, CSV, Markdown and picture, with all that it takes to judge it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from umd.files import write_whole
from umd.metrics.paired import holm
from umd.reproduce.costs import extra_costs, step_cost
from umd.reproduce.graph import Benchmark
from umd.reproduce.markdown import markdown
from umd.reproduce.notes import notes_on
from umd.reproduce.paper import figures_beside, quoted_rows
from umd.reproduce.plan import Plan
from umd.reproduce.results import (
    MissingResultError,
    Result,
    compared,
    most_frequent,
    read_result,
    test_questions,
)
from umd.reproduce.scales import TITLES
from umd.reproduce.steps import Workspace

_HEADLINE = {"vqa": "overall", "classification": "accuracy", "retrieval": "text to image R@1"}
_PACKAGES = ("umd", "torch", "lightning", "transformers", "torchvision")


def up_to_date(plan: Plan, workspace: Workspace, stem: Path) -> bool:
    """Whether the report that lies there is of this plan, complete, and written by this code."""
    path = stem.with_suffix(".json")
    if plan.experiment.figure or not path.is_file() or not stem.with_suffix(".md").is_file():
        return False
    if not all(workspace.done(step) for step in plan.steps):
        return False
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return bool(written["inputs"] == _inputs(plan, workspace))


def write(plan: Plan, workspace: Workspace, stem: Path, command: str) -> list[Path]:
    """Write the report of what is done, and return its files; what is missing is named in it.

    Args:
        plan: the table or figure.
        workspace: where the steps lie.
        stem: the files' path without ending.
        command: what was typed, for the note under the table.
    """
    from umd.reproduce.figures import draw, draw_table

    stem.parent.mkdir(parents=True, exist_ok=True)
    if plan.experiment.figure:
        return draw(plan, workspace, stem)
    table = collect(plan, workspace, command)
    if not any(row["kind"] in ("ours", "control") for row in table["rows"]):
        return []
    texts = {
        ".json": json.dumps(table, indent=1, ensure_ascii=False) + "\n",
        ".csv": pd.DataFrame(table["rows"]).to_csv(index=False),
        ".md": markdown(table),
    }
    paths = []
    for ending, text in texts.items():
        paths.append(stem.with_suffix(ending))
        write_whole(paths[-1], text)
    return [*paths, *draw_table(table, stem)]


def collect(plan: Plan, workspace: Workspace, command: str) -> dict[str, Any]:
    """The table as plain data."""
    experiment = plan.experiment
    results: dict[tuple[str, tuple[str, str | None]], Result] = {}
    missing: list[str] = []
    rows: list[dict[str, Any]] = []
    for benchmark, looked in plan.data:
        questions = test_questions(workspace.folder(looked)) if workspace.done(looked) else None
        if questions is not None:
            title = f"most frequent {'answer by type of question' if experiment.task == 'vqa' else 'class'}"
            rows += _rows("most_frequent", title, "reference", benchmark, most_frequent(questions), {})
        for cells in plan.rows_on(benchmark):
            row = cells[0].row
            done = [cell.step for cell in cells if workspace.done(cell.step)]
            missing += [f"{row.title}: {cell.step}" for cell in cells if cell.step not in done]
            if not done:
                continue
            try:
                result = read_result(done, workspace, questions if experiment.task == "vqa" else None)
            except MissingResultError as error:
                missing.append(f"{row.title}: {error}")
                continue
            results[row.name, benchmark.key] = result
            rows += _rows(row.name, row.title, row.kind, benchmark, result, figures_beside(plan, row.paper, benchmark))
    rows += quoted_rows(plan)
    return {
        "title": experiment.title,
        "setting": plan.setting.describe(),
        "scale": plan.setting.scale,
        "headline": _HEADLINE[experiment.task],
        "metrics": list(dict.fromkeys(row["metric"] for row in rows)),
        "rows": rows,
        "costs": _costs(plan, workspace),
        "comparisons": list(_comparisons(plan, results)),
        "missing": missing,
        "notes": notes_on(plan, workspace),
        "command": command,
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "code": _code(plan, workspace)[:12],
        "inputs": _inputs(plan, workspace),
    }


def _rows(
    name: str, title: str, kind: str, benchmark: Benchmark, result: Result, paper: dict[str, float]
) -> Iterator[dict[str, Any]]:
    for metric, value in result.metrics.items():
        figure = paper.get(metric)
        yield {
            "row": name,
            "title": title,
            "kind": kind,
            "dataset": benchmark.dataset,
            "dataset_title": TITLES[benchmark.dataset],
            "protocol": benchmark.protocol,
            "metric": metric,
            "mean": value.mean,
            "std": value.std,
            "seeds": result.seeds,
            "interval_low": value.low,
            "interval_high": value.high,
            "image_interval_low": value.image_low,
            "image_interval_high": value.image_high,
            "count": value.count,
            "ceiling": value.ceiling,
            "paper": figure,
            "difference": None if figure is None else value.mean - figure,
        }


def _comparisons(plan: Plan, results: dict[tuple[str, tuple[str, str | None]], Result]) -> Iterator[dict[str, Any]]:
    """The experiment's main row against each other one, or each against its baseline."""
    main = plan.experiment.against or plan.experiment.baseline
    titles = {row.name: row.title for row in plan.experiment.rows}
    for benchmark, _ in plan.data:
        here = [name for name, key in results if key == benchmark.key]
        rows: list[dict[str, Any]] = []
        for name in here:
            if main not in here or name == main:
                continue
            one, other = (name, main) if plan.experiment.baseline else (main, name)
            found = compared(results[one, benchmark.key], results[other, benchmark.key])
            if found is not None:
                rows.append(
                    {
                        "dataset_title": TITLES[benchmark.dataset],
                        "protocol": benchmark.protocol,
                        "one": titles[one],
                        "other": titles[other],
                        **asdict(found),
                        "p": list(found.p),
                    }
                )
        if plan.experiment.baseline:
            by_chance = [row["question_p"] if row["image_p"] is None else row["image_p"] for row in rows]
            rows = [row | {"p_holm": p} for row, p in zip(rows, holm(by_chance), strict=True)]
        yield from rows


def _costs(plan: Plan, workspace: Workspace) -> dict[str, float]:
    """By how many per cent a step of each row costs more than one of the baseline, where that was measured."""
    found = {name: step_cost(workspace.folder(step)) for name, step in plan.costs if workspace.done(step)}
    known = {name: cost for name, cost in found.items() if cost is not None}
    return extra_costs(known, plan.experiment.baseline)


def _inputs(plan: Plan, workspace: Workspace) -> str:
    """Digest of what the report is made from: every cell, the paper's figures, and the code that writes it."""
    digest = hashlib.sha256()
    for cell in plan.cells:
        digest.update(f"{cell.row.name} {cell.row.title} {workspace.fingerprint(cell.step)}\n".encode())
    for _, step in (*plan.data, *plan.costs):
        digest.update(f"{workspace.fingerprint(step)}\n".encode())
    digest.update(workspace.code.digest(workspace.code.files(__name__, ())).encode())
    return digest.hexdigest()


def _code(plan: Plan, workspace: Workspace) -> str:
    """Digest of the code of all steps."""
    digests = sorted({workspace.code_of(step) for step in plan.steps})
    return hashlib.sha256("".join(digests).encode()).hexdigest()
