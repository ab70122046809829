"""Ours beside the paper's: a table as JSON, CSV, Markdown and picture, with all that it takes to judge it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from umd.files import write_whole
from umd.metrics.paired import holm
from umd.reproduce.costs import extra_costs, step_cost
from umd.reproduce.graph import CONTRASTED, Benchmark
from umd.reproduce.plan import Cell, Plan
from umd.reproduce.results import (
    MissingResultError,
    Result,
    compared,
    most_frequent,
    read_result,
    test_questions,
)
from umd.reproduce.scales import CAPTIONS, TITLES
from umd.reproduce.steps import Workspace

_UNKNOWN = (
    *("mean", "std", "seeds", "interval_low", "interval_high"),
    *("image_interval_low", "image_interval_high", "count", "ceiling"),
)  # of a row that is quoted
_HEADLINE = {"vqa": "overall", "classification": "accuracy", "retrieval": "text to image R@1"}
_PACKAGES = ("umd", "torch", "lightning", "transformers", "torchvision")
_PROTOCOLS = {
    "clean": "answers of the training rows alone, validation carved out of train by image, no reworded twin of a "
    "test question in train, test read once",
    "paper": "as the field does it: answers of all splits, all training rows, and where there is no validation split "
    "the checkpoint is chosen on the test split",
}


@cache
def paper_figures() -> dict[str, Any]:
    """The figures of both papers' tables."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "paper.json").read_text(encoding="utf-8"))
    return found


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
    facts = {_key(benchmark): workspace.folder(step) for benchmark, step in plan.data if workspace.done(step)}
    results: dict[tuple[str, tuple[str, str | None]], Result] = {}
    missing: list[str] = []
    rows: list[dict[str, Any]] = []
    for benchmark in _benchmarks(plan):
        folder = facts.get(_key(benchmark))
        questions = test_questions(folder) if folder else None
        if questions is not None:
            title = f"most frequent {'answer by type of question' if experiment.task == 'vqa' else 'class'}"
            rows += _rows("most_frequent", title, "reference", benchmark, most_frequent(questions), {})
        for name, cells in _by_row(plan, benchmark):
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
            results[name, _key(benchmark)] = result
            rows += _rows(name, row.title, row.kind, benchmark, result, _paper(plan, row.paper, benchmark))
    rows += _quoted(plan)
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
        "notes": _notes(plan, facts, workspace),
        "command": command,
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "code": _code(plan, workspace)[:12],
        "inputs": _inputs(plan, workspace),
    }


def _benchmarks(plan: Plan) -> list[Benchmark]:
    """One benchmark for each data set and protocol, of whichever seed."""
    benchmarks = {_key(cell.benchmark): cell.benchmark for cell in plan.cells}
    return list(benchmarks.values())


def _key(benchmark: Benchmark) -> tuple[str, str | None]:
    return benchmark.dataset, benchmark.protocol


def _by_row(plan: Plan, benchmark: Benchmark) -> Iterator[tuple[str, list[Cell]]]:
    here = [cell for cell in plan.cells if _key(cell.benchmark) == _key(benchmark)]
    for name in dict.fromkeys(cell.row.name for cell in here):
        yield name, [cell for cell in here if cell.row.name == name]


def _paper(plan: Plan, name: str | None, benchmark: Benchmark) -> dict[str, float]:
    """The paper's figures of a row; none where it measured something else: on phantom data, or under `clean`."""
    if plan.setting.scale == "embedded" or plan.experiment.paper is None or benchmark.protocol == "clean":
        return {}
    found: dict[str, float] = paper_figures()[plan.experiment.paper]["rows"].get(name, {}).get(benchmark.dataset, {})
    return found


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


def _quoted(plan: Plan) -> Iterator[dict[str, Any]]:
    """The paper's rows that are not run here, as quoted; none beside phantom data."""
    experiment = plan.experiment
    if plan.setting.scale == "embedded" or experiment.paper is None:
        return
    titles = {row.paper: row.title for row in experiment.rows if row.paper}
    run = {cell.row.paper for cell in plan.cells}
    protocol = "paper" if experiment.task == "vqa" else None
    datasets = list(dict.fromkeys(cell.benchmark.dataset for cell in plan.cells))
    for name, figures in paper_figures()[experiment.paper]["rows"].items():
        if name in run:
            continue
        title = titles.get(name, f"line {name}, which pair of components is not known" if name.isdigit() else name)
        for dataset in datasets:
            for metric, figure in figures.get(dataset, {}).items():
                yield {
                    "row": name,
                    "title": title,
                    "kind": "quoted",
                    "dataset": dataset,
                    "dataset_title": TITLES[dataset],
                    "protocol": protocol,
                    "metric": metric,
                    **dict.fromkeys(_UNKNOWN),
                    "paper": figure,
                    "difference": None,
                }


def _comparisons(plan: Plan, results: dict[tuple[str, tuple[str, str | None]], Result]) -> Iterator[dict[str, Any]]:
    """The experiment's main row against each other one, or each against its baseline."""
    main = plan.experiment.against or plan.experiment.baseline
    titles = {row.name: row.title for row in plan.experiment.rows}
    for benchmark in _benchmarks(plan):
        here = [name for name, key in results if key == _key(benchmark)]
        rows: list[dict[str, Any]] = []
        for name in here:
            if main not in here or name == main:
                continue
            one, other = (name, main) if plan.experiment.baseline else (main, name)
            found = compared(results[one, _key(benchmark)], results[other, _key(benchmark)])
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


def _notes(plan: Plan, facts: dict[tuple[str, str | None], Path], workspace: Workspace) -> list[str]:
    """What a reader must know, a line each."""
    setting, cells = plan.setting, plan.cells
    seeds = list(dict.fromkeys(cell.benchmark.seed for cell in cells))
    notes = [f"Scale: {setting.describe()}."]
    if setting.scale == "small":
        notes.append(
            "At this scale the vision encoder is frozen, fine-tuning sees a few views of each image, drawn "
            "once, and matrices are bfloat16; of VQA-RAD, all training rows are trained on, and the last weights taken."
        )
    for protocol in dict.fromkeys(cell.benchmark.protocol for cell in cells):
        if protocol:
            notes.append(f"Protocol {protocol}: {_PROTOCOLS[protocol]}.")
    for folder in facts.values():
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        described = dict(summary["description"])
        name = ", ".join(filter(None, (described.pop("data"), described.pop("protocol", None))))
        line = f"{name}: " + ", ".join(f"{fact} {value}" for fact, value in described.items())
        overall = [group for group in summary.get("test", {}).get("groups", []) if group["group"] == "overall"]
        if overall:
            line += (
                f"; no classifier over the training answers alone exceeds "
                f"{overall[0]['ceiling_of_training_answers']:.1f} overall"
            )
        notes.append(line + ".")
    notes += plan.experiment.notes
    if plan.costs:
        notes.append(
            f"Extra cost: CPU time of a training step, of {cells[0].benchmark.title}, beside that of "
            f"{plan.experiment.baseline} fine-tuning; each as a multiple of a reference step that is timed behind it, "
            "median of some 30 steps."
        )
    if plan.experiment.baseline:
        notes.append(f"p (Holm): sign-flip p over images, corrected for the rows beside {plan.experiment.baseline}.")
    if setting.perturbed and any(setting.perturbed in word for cell in cells for word in cell.step.options):
        notes.append(f"Weights of {setting.perturbed} are perturbed, since the vision encoder is frozen.")
    if any(cell.step.source is not None for cell in cells):
        notes.append(_pretrained_on(plan))
    notes += _left_out(plan, workspace)
    notes += _contrasted(plan, workspace)
    if len(seeds) > 1:
        notes.append(
            f"Seeds {', '.join(map(str, seeds))} of calibration and fine-tuning; pre-training has one, 0. "
            "Mean ± standard deviation over seeds."
        )
    else:
        notes.append(f"One seed ({seeds[0]}).")
    notes.append(
        "Square brackets: 95 % bootstrap interval over test samples; braces: over their images, since samples that "
        "share an image are not independent."
    )
    if setting.scale != "embedded" and plan.experiment.paper:
        notes.append(
            f"Paper: {paper_figures()[plan.experiment.paper]['source']}; its figures stand beside "
            "protocol paper alone, which is how they were measured."
            if plan.experiment.task == "vqa"
            else f"Paper: {paper_figures()[plan.experiment.paper]['source']}."
        )
    return notes


def _pretrained_on(plan: Plan) -> str:
    if plan.setting.scale == "embedded":
        return "Pre-training: on phantom captions."
    if plan.setting.pretrain_on == "captions":
        return f"Pre-training: on captions of {' and '.join(CAPTIONS[name] for name in plan.setting.captions)}."
    return (
        "Pre-training: on the task's own training pairs under protocol clean, questions for captions, for want of "
        "captions; the papers pre-train on ROCO and MedICaT."
    )


def _left_out(plan: Plan, workspace: Workspace) -> list[str]:
    """What pre-trainings left out of their captions, as the tests behind them say it."""
    notes: dict[str, None] = {}
    for cell in plan.cells:
        path = workspace.folder(cell.step) / "results.json"
        if workspace.done(cell.step) and path.is_file():
            told = json.loads(path.read_text(encoding="utf-8"))["notes"]
            notes |= dict.fromkeys(f"{note[0].upper()}{note[1:]}." for note in told if note.startswith("left out of "))
    return list(notes)


def _contrasted(plan: Plan, workspace: Workspace) -> list[str]:
    """How many negatives the contrastive pre-trainings had, if there are any, by their own logs."""
    notes = []
    for step in plan.steps:
        for preset in CONTRASTED:
            if step.stage == "pretrain" and preset in step.options:
                number = _last_logged(workspace.folder(step), "train/negatives")
                told = "an unknown number of" if number is None else f"{number:.0f}"
                notes.append(f"{preset.upper()} contrasted each pair with {told} others.")
    return notes


def _last_logged(folder: Path, name: str) -> float | None:
    """The last value of a metric in a training's log."""
    values = [
        pd.read_csv(file).get(name, pd.Series(dtype=float)).dropna() for file in sorted(folder.rglob("metrics.csv"))
    ]
    return float(values[-1].iloc[-1]) if values and len(values[-1]) else None


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


def markdown(table: dict[str, Any]) -> str:
    """The table for a reader: one part a data set, rows down, metrics across."""
    parts = [f"# {table['title']}", f"**{table['setting']}**"]
    for dataset in dict.fromkeys(row["dataset_title"] for row in table["rows"]):
        rows = [row for row in table["rows"] if row["dataset_title"] == dataset]
        parts += [f"## {dataset}", _part(rows, table["headline"], table["costs"])]
    if table["comparisons"]:
        parts += ["## Paired comparisons", _compared(table["comparisons"], table["headline"])]
    if table["missing"]:
        parts += ["**Missing**, since a step has no result:", "\n".join(f"- {name}" for name in table["missing"])]
    versions = ", ".join(f"{name} {number}" for name, number in table["versions"].items())
    notes = [*table["notes"], f"Versions: {versions}; code {table['code']}.", f"Command: `{table['command']}`"]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _part(rows: Sequence[dict[str, Any]], headline: str, costs: Mapping[str, float]) -> str:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    counts = {row["metric"]: row["count"] for row in rows if row["count"]}
    protocols = any(row["protocol"] for row in rows)
    ceilings = any(row["ceiling"] is not None for row in rows)
    papers = any(row["paper"] is not None for row in rows)
    header = ["row", *(["protocol"] if protocols else []), *(["extra cost a step"] if costs else [])]
    header += [f"{metric} ({counts[metric]})" if metric in counts else metric for metric in metrics]
    header += [*([f"ceiling ({headline})"] if ceilings else [])]
    header += [f"paper: {' / '.join(_with_paper(rows))}", f"{headline}: difference"] if papers else []
    lines = [header, ["---"] * len(header)]
    for key in dict.fromkeys((row["row"], row["kind"], row["protocol"]) for row in rows):
        own = {row["metric"]: row for row in rows if (row["row"], row["kind"], row["protocol"]) == key}
        first = next(iter(own.values()))
        mark = {"quoted": " (quoted)", "control": " (control)", "reference": " (reference)", "ours": ""}[first["kind"]]
        line = [first["title"] + mark, *([first["protocol"] or "-"] if protocols else [])]
        line += [f"{costs[first['row']]:+.0f} %" if first["row"] in costs else "-"] if costs else []
        line += [_cell(own.get(metric)) for metric in metrics]
        main = own.get(headline)
        line += [_number(main["ceiling"] if main else None)] if ceilings else []
        if papers:
            line += [" / ".join(_number(own[m]["paper"] if m in own else None) for m in _with_paper(rows))]
            line += [_signed(main["difference"] if main else None)]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_paper(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["metric"] for row in rows if row["paper"] is not None))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "-"
    spread = f" ± {row['std']:.1f}" if row["std"] is not None else ""
    cell = f"{row['mean']:.1f}{spread} [{row['interval_low']:.1f}, {row['interval_high']:.1f}]"
    if row["image_interval_low"] is None:
        return cell
    return f"{cell} {{{row['image_interval_low']:.1f}, {row['image_interval_high']:.1f}}}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _compared(comparisons: Sequence[dict[str, Any]], headline: str) -> str:
    header = [
        f"{headline}: difference [95 % interval] {{over images}}",
        "McNemar p, by seed",
        "sign-flip p over images",
    ]
    corrected = any("p_holm" in found for found in comparisons)
    header += ["p (Holm)"] if corrected else []
    lines = [["on", "rows", *header], ["---"] * (2 + len(header))]
    for found in comparisons:
        where = ", ".join(filter(None, (found["dataset_title"], found["protocol"])))
        difference = f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
        if found["image_low"] is not None:
            difference += f" {{{found['image_low']:+.1f}, {found['image_high']:+.1f}}}"
        p = ", ".join(map(_p, found["p"]))
        line = [where, f"{found['one']} against {found['other']}", difference, p, _p(found["image_p"])]
        lines.append([*line, *([_p(found["p_holm"])] if corrected else [])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
