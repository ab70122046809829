"""The figures show what the steps left, name what is missing, and come out the same each time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests.umd.reproduce.results import write_csv
from tests.umd.reproduce.test_plan import CODE
from umd.reproduce.figures import draw, draw_table
from umd.reproduce.figures.curves import validation_curve
from umd.reproduce.figures.dots import dots
from umd.reproduce.figures.features import modality_gap, neighbour_share
from umd.reproduce.figures.questions import choose
from umd.reproduce.graph import Graph
from umd.reproduce.plan import Plan, make_plan
from umd.reproduce.scales import PHANTOM, Setting
from umd.reproduce.steps import Step, Workspace
from umd.reproduce.tables import EXPERIMENTS

EMBEDDED = "embedded scale: tiny encoders on phantom data; NOT comparable with any paper"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Path(__file__).parents[3] / "configs", tmp_path, CODE)


def plan_of(name: str) -> Plan:
    """A figure's plan at the embedded scale, what the data holds included."""
    setting, experiment = Setting(), EXPERIMENTS[name]
    rows = [row.name for row in experiment.rows]
    plan = make_plan(experiment, setting, rows=rows, datasets=[PHANTOM], protocols=["clean"], seeds=[0])
    benchmark = plan.cells[0].benchmark
    return replace(plan, data=((benchmark, Graph(setting).data(benchmark)),))


def finished(workspace: Workspace, step: Step) -> Path:
    folder = workspace.folder(step)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "done.json").write_text("{}")
    return folder


def texts(svg: Path) -> list[str]:
    """All that is written in a picture, as text."""
    root = ElementTree.parse(svg).getroot()
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def write_report(folder: Path, overall: float) -> None:
    rows = [{"group": "overall", "accuracy": overall, "interval_low": overall - 5, "interval_high": overall + 4}]
    (folder / "results.json").write_text(json.dumps({"rows": rows}))


def test_a_value_that_changes_changes_the_picture_and_nothing_else_does(workspace: Workspace, tmp_path: Path) -> None:
    plan = plan_of("figure5")
    assert draw(plan, workspace, tmp_path / "figure5") == [] and list(tmp_path.iterdir()) == []
    for cell, accuracy in zip(plan.cells[:2], (61.23, 58.0), strict=True):
        write_report(finished(workspace, cell.step), accuracy)
    png, svg = draw(plan, workspace, tmp_path / "figure5")
    assert (png.name, svg.name) == ("figure5.png", "figure5.svg") and not list(tmp_path.glob(".*"))
    assert {"61.2", "58.0", "0.2", "0.5", EMBEDDED} <= set(texts(svg)) and "0.8" not in texts(svg)
    assert any("no result: alpha 0.8 (phantom, protocol clean)" in text for text in texts(svg))

    before, pixels = svg.read_bytes(), png.read_bytes()
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "svg.fonttype": "path"}):  # a user's own taste
        draw(plan, workspace, tmp_path / "figure5")
    assert (svg.read_bytes(), png.read_bytes()) == (before, pixels)

    write_report(workspace.folder(plan.cells[0].step), 47.6)
    draw(plan, workspace, tmp_path / "figure5")
    assert "47.6" in texts(svg) and "61.2" not in texts(svg) and png.read_bytes() != pixels


def write_log(run: Path, version: int, values: dict[int, float]) -> None:
    """What the CSV logger writes: a row of training values between two validations."""
    folder = run / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    lines = [f"{epoch},,0.5\n{epoch},{value}," for epoch, value in values.items()]
    (folder / "metrics.csv").write_text("\n".join(["epoch,validation/overall,train/loss", *lines]) + "\n")


def test_a_resumed_training_is_one_curve(workspace: Workspace, tmp_path: Path) -> None:
    plan = plan_of("figure3")
    first, second = (finished(workspace, cell.step) for cell in plan.cells[:2])
    # Twice interrupted: each time the last epoch was done again. As texts, version_10 would come before version_2.
    write_log(first, 0, {0: 30.0, 1: 99.0})
    write_log(first, 2, {1: 40.0, 2: 98.0})
    write_log(first, 10, {2: 50.0, 3: 45.0})
    assert validation_curve(first) == {1: 30.0, 2: 40.0, 3: 50.0, 4: 45.0}
    (second / "csv/version_0").mkdir(parents=True)
    (second / "csv/version_0/metrics.csv").write_text("epoch,train/loss\n0,1.0\n")
    _, svg = draw(plan, workspace, tmp_path / "figure3")
    shown = texts(svg)
    assert "(best 50.0, epoch 3)" in shown
    assert any("nothing was validated: pre-training only (phantom" in text for text in shown)


CASES = {(True, True): 120, (False, True): 40, (True, False): 30, (False, False): 10}


def test_the_questions_shown_are_shared_out_without_regard_to_which_model_is_better() -> None:
    cases = [case for case, size in CASES.items() for _ in range(size)]
    images = [f"{index % 61}.jpg" for index in range(len(cases))]
    shown = choose(cases, images, count=20)
    assert {case: sum(cases[index] == case for index in shown) for case in CASES} == dict(
        zip(CASES, (12, 4, 3, 1), strict=True)
    )
    assert len({images[index] for index in shown}) == 20
    assert {cases[index] for index in choose(cases, images, count=4)} == set(CASES)
    swapped = choose([(other, one) for one, other in cases], images, count=20)
    assert set(swapped) == set(shown)
    assert len(choose(cases, ["one.jpg"] * len(cases))) == 1


def write_answers(folder: Path, answers: Sequence[str], truth: Sequence[str]) -> None:
    write_csv(
        folder / "predictions.csv",
        [
            {
                "index": index,
                "image": f"images/{index}.png",
                "question": f"which, ${index} or $9, & <more>?",
                "answer": answer,
                "confidence": 0.25,
                "ground_truth": true,
                "correct": answer == true,
                "closed": False,
            }
            for index, (answer, true) in enumerate(zip(answers, truth, strict=True))
        ],
    )


def test_questions_are_shown_with_both_answers_and_a_sign(workspace: Workspace, tmp_path: Path) -> None:
    plan = plan_of("figure6")
    truth = ["lung", "liver", "brain"]
    write_answers(finished(workspace, plan.cells[0].step), ["lung", "heart", "brain"], truth)
    write_answers(finished(workspace, plan.cells[1].step), ["knee", "liver", "brain"], truth)
    assert draw(plan, workspace, tmp_path / "figure6") == []  # where the images lie is not known yet
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    Image.new("L", (30, 20), 128).save(root / "images/0.png")
    Image.fromarray(np.full((20, 30), 4000, dtype=np.uint16)).save(root / "images/1.png")
    folder = finished(workspace, plan.data[0][1])
    (folder / "summary.json").write_text(json.dumps({"splits": {"test": {}}, "root": str(root)}))
    _, svg = draw(plan, workspace, tmp_path / "figure6")
    shown = "\n".join(texts(svg))
    for index, m3ae, umd in ((0, "✓  M3AE: lung", "✗  UMD: knee"), (1, "✗  M3AE: heart", "✓  UMD: liver")):
        asked = shown.index(f"which, ${index} or $9, & <more>?\ntrue answer: {truth[index]}")
        assert asked < shown.index(f"{m3ae}  (confidence 0.25)") < shown.index(f"{umd}  (confidence 0.25)")
    assert "images/2.png" in shown[shown.index("cannot be shown:") :]
    assert "of the 3 test questions of phantom, protocol clean (both right: 1;" in shown


def write_features(folder: Path, apart: float, labels: Iterable[str]) -> None:
    """Classes and modalities on either side of the origin, each class `apart` from the other."""
    names = list(labels)
    noise = np.random.default_rng(0).normal(size=(2, len(names), 5))
    side = np.array([apart if name == names[0] else -apart for name in names])[:, None]
    features = {"image": noise[0] + side, "text": noise[1] + side + 40 * np.eye(5)[0]}
    np.savez(folder / "features.npz", label=np.array(names), **features)


def test_features_are_drawn_by_class_and_by_modality(workspace: Workspace, tmp_path: Path) -> None:
    labels = ["western blot", "two hybrid"] * 12
    by_class = plan_of("figure7")
    for cell, apart in zip(by_class.cells, (0, 0, 50), strict=True):
        write_features(finished(workspace, cell.step), apart, labels)
    _, svg = draw(by_class, workspace, tmp_path / "figure7")
    shown = texts(svg)
    assert {"FLIP", "M3AE", "UMD", "western blot", "two hybrid", EMBEDDED} <= set(shown)
    assert shown.count("10-NN purity 100 % (chance 48 %)") == 1  # 11 of 23 others are of a sample's class
    before = svg.read_bytes()
    draw(by_class, workspace, tmp_path / "figure7")
    assert svg.read_bytes() == before

    by_modality = plan_of("figure8")
    write_features(finished(workspace, by_modality.cells[1].step), 0, labels)
    _, svg = draw(by_modality, workspace, tmp_path / "figure8")
    assert {"with TD-Calib", "10-NN mixing 0 % (fully mixed 51 %)", "image feature", "text feature"} <= set(texts(svg))
    assert any("no result: without TD-Calib" in text for text in texts(svg))


def test_numbers_of_features_against_a_slow_count() -> None:
    generator = np.random.default_rng(1)
    features, labels = generator.normal(size=(40, 3)), generator.integers(3, size=40).astype(str)
    same, alike = [], []
    for one in range(40):
        others = sorted(
            (other for other in range(40) if other != one), key=lambda o: np.linalg.norm(features[o] - features[one])
        )
        same += [labels[other] == labels[one] for other in others[:10]]
        alike += [labels[other] == labels[one] for other in others]
    assert neighbour_share(features, labels) == pytest.approx((100 * np.mean(same), 100 * np.mean(alike)))
    # Two points at distance 1 from each centroid, the centroids 6 apart.
    image, text = np.array([[0.0, 1.0], [0.0, -1.0]]), np.array([[6.0, 1.0], [6.0, -1.0]])
    assert modality_gap(image, text) == pytest.approx(6.0)


def row(name: str, kind: str, mean: float | None, protocol: str | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    ends = {"interval_low": None, "interval_high": None} if mean is None else {}
    return {
        **{"row": name, "title": name.upper(), "kind": kind, "dataset": "slake", "dataset_title": "SLAKE"},
        **{"protocol": protocol, "metric": "overall", "mean": mean, "seeds": 1, "count": 50, "paper": None},
        **{"interval_low": (mean or 0) - 3, "interval_high": (mean or 0) + 2, **ends, **more},
    }


def test_a_tables_rows_stand_in_its_order_controls_and_quotations_apart(tmp_path: Path) -> None:
    rows = [
        row("most_frequent", "reference", 40.0, "clean"),
        row("m3ae", "ours", 60.0, "clean"),
        row("umd", "ours", 62.0, "clean"),
        row("umd", "ours", 71.0, "paper", paper=84.73),
        row("umd", "ours", 33.0, "clean", metric="open"),
        row("blank", "control", 45.0, "clean"),
        row("BAN", "quoted", None, "paper", paper=76.3, count=None, seeds=None),
    ]
    table = {"title": "Table", "setting": EMBEDDED, "headline": "overall", "rows": rows, "missing": ["X: vqa/x"]}
    picture = dots(table)
    assert picture is not None and list(picture.legend) == [
        "ours, protocol clean",
        "ours, protocol paper",
        "the paper's number",
    ]
    axis = picture.figure.axes[0]
    heights = dict(zip((label.get_text() for label in axis.get_yticklabels()), axis.get_yticks(), strict=True))
    assert list(heights) == ["M3AE", "UMD", "MOST_FREQUENT", "BLANK", "BAN"]
    gaps = np.diff(list(heights.values()))
    assert gaps[[0, 2]].tolist() == [1, 1] and gaps[[1, 3]].min() > 1
    marks = {
        (min(heights, key=lambda name: abs(heights[name] - y)), line.get_marker(), x)
        for line in axis.lines
        if line.get_marker() != "None"
        for x, y in np.column_stack([line.get_xdata(), line.get_ydata()]).tolist()
    }
    clean = {("M3AE", "o", 60.0), ("UMD", "o", 62.0), ("MOST_FREQUENT", "o", 40.0), ("BLANK", "o", 45.0)}
    assert marks == clean | {("UMD", "s", 71.0), ("UMD", "D", 84.73), ("BAN", "D", 76.3)}
    bars = {tuple(np.asarray(line.get_xdata()).tolist()) for line in axis.lines if line.get_marker() == "None"}
    assert {(37.0, 42.0), (57.0, 62.0), (59.0, 64.0), (68.0, 73.0), (42.0, 47.0)} == bars - {(0.0, 1.0)}
    _, svg = draw_table(table, tmp_path / "table1")
    assert {"Table", EMBEDDED, "SLAKE (n = 50)", "overall accuracy (%)", "MOST_FREQUENT"} <= set(texts(svg))
    assert any("no result: X: vqa/x." in text for text in texts(svg))
    assert draw_table({**table, "rows": []}, tmp_path / "empty") == [] and not (tmp_path / "empty.svg").exists()
