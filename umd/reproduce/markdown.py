"""A table for a reader, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
