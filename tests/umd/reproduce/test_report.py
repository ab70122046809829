"""The table's numbers against a plain computation, and what stands beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.umd.reproduce.results import QUESTIONS, finish, groups
from tests.umd.reproduce.test_plan import plan, workspace
from umd.reproduce.markdown import markdown
from umd.reproduce.paper import paper_figures
from umd.reproduce.plan import Plan
from umd.reproduce.report import collect, up_to_date
from umd.reproduce.scales import Setting
from umd.reproduce.steps import Workspace

REAL = Setting("small", Path("/data"), pretrain_on="task")


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Plan, Workspace, dict[Any, Any]]:
    """Rows umd and m3ae on VQA-RAD under both protocols with two seeds, all done."""
    made = plan("table1", REAL, rows=["umd", "m3ae"], datasets=["vqa_rad"])
    here = workspace(tmp_path)
    random = np.random.default_rng(0)
    correct = {cell.step: random.random(QUESTIONS) < 0.6 for cell in made.cells}
    finish(made, here, correct)
    return made, here, correct


def row(table: dict[str, Any], **wanted: object) -> dict[str, Any]:
    (found,) = [row for row in table["rows"] if all(row[key] == value for key, value in wanted.items())]
    return dict(found)


def test_mean_deviation_and_difference_over_seeds(finished: tuple[Plan, Workspace, dict[Any, Any]]) -> None:
    made, here, correct = finished
    table = collect(made, here, "umd reproduce table1")
    for protocol in ("clean", "paper"):
        steps = [c.step for c in made.cells if c.row.name == "umd" and c.benchmark.protocol == protocol]
        for metric, members in groups().items():
            shares = np.array([100 * correct[step][members].mean() for step in steps])
            found = row(table, row="umd", protocol=protocol, metric=metric)
            assert found["mean"] == pytest.approx(shares.mean())
            assert found["std"] == pytest.approx(abs(shares[0] - shares[1]) / np.sqrt(2))
            assert found["count"] == members.sum()
            assert found["interval_low"] <= found["mean"] <= found["interval_high"]
    found = row(table, row="umd", protocol="paper", metric="overall")
    assert found["paper"] == 78.71  # UMD, Table 1
    assert found["difference"] == pytest.approx(found["mean"] - 78.71)
    assert row(table, row="umd", protocol="clean", metric="overall")["paper"] is None


def test_a_contrastive_baseline_says_how_many_negatives_it_had(tmp_path: Path) -> None:
    made, here = plan("table1", REAL, rows=["clip", "umd"], datasets=["vqa_rad"]), workspace(tmp_path)
    finish(made, here, {cell.step: np.ones(QUESTIONS, dtype=bool) for cell in made.cells})
    (pretrained,) = [step for step in made.steps if step.stage == "pretrain" and "clip" in step.options]

    def told() -> list[str]:
        return [note for note in collect(made, here, "")["notes"] if "contrasted" in note]

    assert told() == ["CLIP contrasted each pair with an unknown number of others."]
    log = here.folder(pretrained) / "csv" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,train/loss,train/negatives\n0,1.5,31.0\n1,1.4,\n")
    assert told() == ["CLIP contrasted each pair with 31 others."]


def test_the_most_frequent_answer_and_quoted_rows_stand_beside(
    finished: tuple[Plan, Workspace, dict[Any, Any]],
) -> None:
    made, here, _ = finished
    table = collect(made, here, "")
    index = np.arange(QUESTIONS)
    expected = 100 * (index % 3 != 0)[index % 4 == 0].mean()
    assert row(table, kind="reference", protocol="clean", metric="twin-free")["mean"] == pytest.approx(expected)
    quoted = {row["row"]: row["paper"] for row in table["rows"] if row["kind"] == "quoted" and row["metric"] == "open"}
    assert quoted["MFB"] == 14.5
    assert "MAE" in quoted  # a row of ours that is not run here
    assert not {"UMD", "M3AE"} & set(quoted)
    text = markdown(table)
    assert "| MFB (quoted) | paper | - | - | - | - | - | - | 14.5 / 74.3 / 50.6 | - |" in text
    assert "frozen EfficientNet-Lite0" in text.splitlines()[2]


def test_pairs_are_compared_question_by_question(finished: tuple[Plan, Workspace, dict[Any, Any]]) -> None:
    made, here, correct = finished
    table = collect(made, here, "")
    by = {(c.row.name, c.benchmark.protocol, c.benchmark.seed): correct[c.step].astype(float) for c in made.cells}
    for found in table["comparisons"]:
        gained = [by["umd", found["protocol"], s] - by["m3ae", found["protocol"], s] for s in (0, 1)]
        assert found["difference"] == pytest.approx(100 * np.mean(gained))
        assert found["low"] < found["difference"] < found["high"]
        assert len(found["p"]) == 2
    assert len(table["comparisons"]) == 2


def test_rivals_are_compared_with_the_plain_row_and_corrected_for_their_number(tmp_path: Path) -> None:
    names = ["plain", "gm_coord", "sam"]
    made, here = plan("rivals", REAL, rows=names, datasets=["vqa_rad"], protocols=["clean"]), workspace(tmp_path)
    random = np.random.default_rng(0)
    share = {"plain": 0.4, "gm_coord": 0.5, "sam": 0.8}
    finish(made, here, {cell.step: random.random(QUESTIONS) < share[cell.row.name] for cell in made.cells})
    for (_, step), seconds in zip(made.costs, (2.0, 2.2, 4.0), strict=True):
        steps = [{"forward": [seconds / 2 * slow, 9.0], "backward": [seconds / 2 * slow, 9.0]} for slow in (1, 5, 2)]
        timed = [one | {"reference": [slow, 9.0]} for one, slow in zip(steps, (1, 5, 2), strict=True)]
        # What was before the first step, that step, and what came behind the last one count for nothing.
        around = {"forward": [100.0, 9.0], "reference": [1.0, 9.0]}
        everything = {"steps": [{"rest": [7.0, 9.0]}, around, *timed, around]}
        (here.folder(step) / "costs.json").write_text(json.dumps(everything))
    table = collect(made, here, "")
    assert table["costs"] == pytest.approx({"gm_coord": 10, "sam": 100})
    assert [found["other"] for found in table["comparisons"]] == ["plain fine-tuning"] * 2
    p = sorted(found["image_p"] for found in table["comparisons"])
    assert sorted(found["p_holm"] for found in table["comparisons"]) == pytest.approx(
        [min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])]
    )
    sam = next(found for found in table["comparisons"] if found["one"] == "SAM")
    means = {name: row(table, row=name, metric="overall")["mean"] for name in names}
    assert sam["difference"] == pytest.approx(means["sam"] - means["plain"])
    text = markdown(table)
    assert "| SAM | clean | +100 % |" in text and "| plain fine-tuning | clean | - |" in text


def test_what_is_missing_is_named_and_nothing_of_it_is_shown(
    finished: tuple[Plan, Workspace, dict[Any, Any]],
) -> None:
    made, here, _ = finished
    lost = [cell for cell in made.cells if cell.row.name == "m3ae" and cell.benchmark.protocol == "paper"]
    for cell in lost:
        (here.folder(cell.step) / "done.json").unlink()
    table = collect(made, here, "")
    assert len(table["missing"]) == 2
    assert not [r for r in table["rows"] if r["row"] == "m3ae" and r["protocol"] == "paper"]
    assert f"- M3AE: {lost[0].step}" in markdown(table)


def test_predictions_that_contradict_the_report_are_refused(
    finished: tuple[Plan, Workspace, dict[Any, Any]],
) -> None:
    made, here, _ = finished
    path = here.folder(made.cells[0].step) / "results.json"
    report = json.loads(path.read_text())
    report["rows"][2]["accuracy"] += 1
    path.write_text(json.dumps(report))
    with pytest.raises(ValueError, match="disagree on 'overall'"):
        collect(made, here, "")


def test_phantom_rows_stand_beside_no_paper(tmp_path: Path) -> None:
    made = plan("table1", Setting(), rows=["umd"], seeds=[0])
    here = workspace(tmp_path)
    finish(made, here, {cell.step: np.arange(QUESTIONS) % 2 == 0 for cell in made.cells})
    table = collect(made, here, "")
    assert {row["paper"] for row in table["rows"]} == {None}
    assert "NOT comparable" in markdown(table).splitlines()[2]


def test_a_report_is_made_again_only_where_something_changed(
    finished: tuple[Plan, Workspace, dict[Any, Any]], tmp_path: Path
) -> None:
    made, here, _ = finished
    stem = tmp_path / "table1"
    assert not up_to_date(made, here, stem)
    table = collect(made, here, "")
    stem.with_suffix(".json").write_text(json.dumps(table))
    stem.with_suffix(".md").write_text(markdown(table))
    assert up_to_date(made, here, stem)
    fewer = plan("table1", REAL, rows=["umd"], datasets=["vqa_rad"])
    assert not up_to_date(fewer, here, stem)
    (here.folder(made.cells[0].step) / "done.json").unlink()
    assert not up_to_date(made, here, stem)


def test_the_papers_figures_are_the_papers() -> None:
    tables = paper_figures()
    # UMD, Tables 1 to 5, and GGP, Table 1: the rows of the methods themselves, typed from the papers.
    assert tables["umd_table1"]["rows"]["UMD"] == {
        "vqa_rad": {"open": 68.16, "closed": 85.66, "overall": 78.71},
        "slake": {"open": 82.17, "closed": 88.7, "overall": 84.73},
        "vqa_med_2019": {"overall": 80.53},
    }
    assert list(tables["umd_table2"]["rows"]["UMD"]["roco"].values()) == [23.21, 54.28, 67.88, 24.39, 54.27, 68.97]
    assert tables["umd_table3"]["rows"]["UMD"]["melinda"] == {"accuracy": 79.58}
    assert tables["umd_table4"]["rows"]["8"] == tables["umd_table1"]["rows"]["UMD"]
    assert list(tables["umd_table5"]["rows"]["8"]["melinda"].values()) == [79.58, 91.52, 36.0, 94.56]
    assert tables["perturbation_table1"]["rows"]["gradient-guided perturbation"]["vqa_rad"]["overall"] == 78.94
