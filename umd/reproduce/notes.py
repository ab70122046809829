"""What a reader of a table must know, beside its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from umd.reproduce.graph import CONTRASTED
from umd.reproduce.paper import paper_figures
from umd.reproduce.plan import Plan
from umd.reproduce.scales import CAPTIONS
from umd.reproduce.steps import Workspace

_PROTOCOLS = {
    "clean": "answers of the training rows alone, validation carved out of train by image, no reworded twin of a "
    "test question in train, test read once",
    "paper": "as the field does it: answers of all splits, all training rows, and where there is no validation split "
    "the checkpoint is chosen on the test split",
}


def notes_on(plan: Plan, workspace: Workspace) -> list[str]:
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
    for folder in (workspace.folder(step) for _, step in plan.data if workspace.done(step)):
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
