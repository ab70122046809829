"""The papers' figures, and a picture of each table: publication-ready, readable in grey.

matplotlib and scikit-learn are imported when something is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umd.files import UserError
from umd.reproduce.plan import Plan
from umd.reproduce.steps import Workspace


def draw(plan: Plan, workspace: Workspace, stem: Path) -> list[Path]:
    """Draw a figure from the results of its plan's steps.

    A step without a result is left out, and named under the picture.

    Args:
        plan: of an experiment that is a figure.
        workspace: where the steps lie.
        stem: path of the files without ending; their folder is there.

    Returns:
        `<stem>.png` and `<stem>.svg`; nothing, and nothing is written, where no step has a result.

    Raises:
        UserError: the experiment is a table, or two models were tested on different questions.
    """
    from umd.metrics.picture import house_style, save
    from umd.reproduce.figures.curves import alphas, validation
    from umd.reproduce.figures.features import by_class, by_modality
    from umd.reproduce.figures.questions import answered

    painters = {
        "figure3": validation,
        "figure5": alphas,
        "figure6": answered,
        "figure7": by_class,
        "figure8": by_modality,
    }
    name = plan.experiment.name
    if name not in painters:
        raise UserError(f"'{name}' is no figure; the figures are {', '.join(painters)}")
    with house_style():
        picture = painters[name](plan, workspace)
        if picture is None:
            return []
        return save(picture, stem, plan.experiment.title, plan.setting.describe())


def draw_table(table: Mapping[str, Any], stem: Path) -> list[Path]:
    """Draw a table's main metric: a panel for each data set, a line for each row, its interval as a bar.

    Args:
        table: as `umd reproduce` writes it to JSON.
        stem: path of the files without ending; their folder is there.

    Returns:
        `<stem>.png` and `<stem>.svg`; nothing, and nothing is written, where no row has the main metric.
    """
    from umd.metrics.picture import house_style, save
    from umd.reproduce.figures.dots import dots

    with house_style():
        picture = dots(table)
        return [] if picture is None else save(picture, stem, table["title"], table["setting"])
