from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from rich.console import Console

from callbacks.provenance import shown_path
from callbacks.results_table import ResultsTable, results_view, table_cells
from umd.files import UserError
from umd.protocols import AddedResults, Report, Results, Training

REPORT: dict[str, Any] = {
    "title": "VQA-RAD [test split], protocol clean",
    "notes": ["Per cent; 95 % bootstrap interval over questions.", "Größe, ½"],
    "columns": ["group", "questions", "accuracy", "interval_low", "interval_high", "share_of_ceiling"],
    "rows": [
        {
            "group": "open",
            "questions": 179,
            "accuracy": 60.335195530726256,
            "interval_low": 53.0726,
            "interval_high": 67.04,
            "share_of_ceiling": 78.26,
        },
        {
            "group": "closed, yes / no",
            "questions": 0,
            "accuracy": None,
            "interval_low": None,
            "interval_high": None,
            "share_of_ceiling": None,
        },
    ],
}


class Reporting(BoringModel):
    def __init__(self, report: dict[str, Any] = REPORT) -> None:
        super().__init__()
        self.report = report

    def test_report(self) -> dict[str, Any]:
        return self.report


def run_test(module: LightningModule, callback: ResultsTable, folder: Path, **arguments: Any) -> None:  # noqa: ANN401
    options: dict[str, Any] = {"limit_test_batches": 1, "enable_progress_bar": False} | arguments
    Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        callbacks=[callback, *options.pop("callbacks", [])],
        **options,
    ).test(module, verbose=False)


def shown(report: dict[str, Any], width: int) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width)
    console.print(results_view(report, width))
    return text.getvalue()


def test_files_hold_the_report_with_all_digits(tmp_path: Path) -> None:
    callback = ResultsTable()
    run_test(Reporting(), callback, tmp_path / "run")
    assert callback.paths == (tmp_path / "run/results.json", tmp_path / "run/results.csv")
    held = json.loads(callback.paths[0].read_text(encoding="utf-8"))
    assert held | REPORT == held | {"title": REPORT["title"]}
    assert held["title"] == REPORT["title"] + ", partial: 1 of 64 batches"
    with callback.paths[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == REPORT["columns"]
    assert rows == [{key: "" if value is None else str(value) for key, value in row.items()} for row in REPORT["rows"]]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["results.csv", "results.json"]


@pytest.mark.parametrize("progress", [False, True])
def test_the_table_reaches_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool) -> None:
    extra = {"enable_progress_bar": True, "callbacks": [RichProgressBar()]} if progress else {}
    run_test(Reporting(), ResultsTable(), tmp_path, **extra)
    out = capsys.readouterr().out
    for text in (REPORT["title"], *REPORT["notes"], "60.3", "[53.1, 67.0]", "closed, yes / no"):
        assert text in out


def test_cells_join_intervals_and_mark_what_is_undefined() -> None:
    headers, cells = table_cells(REPORT["columns"], REPORT["rows"])
    assert headers == ["group", "questions", "accuracy", "interval", "share of ceiling"]
    assert cells == [
        ["open", "179", "60.3", "[53.1, 67.0]", "78.3"],
        ["closed, yes / no", "0", "-", "-", "-"],
    ]


def test_fractions_keep_two_decimals_and_a_lone_bound_stays_a_column() -> None:
    rows = [{"auc": 0.8765, "auc_low": 0.5, "loss": 2.0}, {"auc": 1.0, "auc_low": 0.25, "loss": 0.125}]
    headers, cells = table_cells(["auc", "auc_low", "loss"], rows)
    assert headers == ["auc", "auc low", "loss"]
    assert cells == [["0.88", "0.50", "2.0"], ["1.00", "0.25", "0.1"]]


def test_a_report_without_rows_is_its_title_and_notes() -> None:
    assert table_cells(["group", "accuracy"], []) == (["group", "accuracy"], [])
    told = shown(REPORT | {"rows": []}, 80)
    assert REPORT["title"] in told and "accuracy" not in told.replace(REPORT["title"], "").split("\n")[1]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_every_number_and_name_is_whole_on_every_terminal(width: int) -> None:
    out = shown(REPORT, width)
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in out
    # A table that would be too wide folds its headers, and where that is not enough becomes a list.
    headers = ["share", "of", "ceiling"] if width == 60 else ["share of ceiling"]
    for text in ("closed, yes / no", "60.3", "[53.1, 67.0]", *headers, "78.3"):
        assert any(text in line for line in lines), f"{text!r} is cut at width {width}"
    one_line = [line for line in lines if "60.3" in line and "[53.1, 67.0]" in line]
    assert bool(one_line) == (width >= 60)


def test_numbers_that_are_not_finite_are_written_as_undefined(tmp_path: Path) -> None:
    report = {"title": "t", "notes": [], "columns": ["auc"], "rows": [{"auc": float("nan")}]}
    callback = ResultsTable(name="auc")
    run_test(Reporting(report), callback, tmp_path)
    assert json.loads((tmp_path / "auc.json").read_text())["rows"] == [{"auc": None}]


def test_a_second_test_replaces_the_first(tmp_path: Path) -> None:
    run_test(Reporting(), ResultsTable(), tmp_path)
    later = REPORT | {"title": "later", "rows": []}
    run_test(Reporting(later), ResultsTable(), tmp_path, limit_test_batches=None)
    held = json.loads((tmp_path / "results.json").read_text())
    assert (held["title"], held["rows"], held["limits"]) == ("later", [], None)


class Documented(Reporting):
    """Says what its weights went through."""

    def lineage(self) -> list[Training]:
        parts: list[Any] = ["a.Stage", "A", "paper", {"train": "9"}, 3, "digest", None, None]
        return [cast(Training, dict(zip(Training.__annotations__, parts, strict=True)))] * 2


class Beside(Callback):
    """Measures something beside the test's own table."""

    def added_results(self) -> AddedResults:
        rows = [{"control": "blank image", "questions": 1}]
        return {"controls": Report(title="beside", notes=[], columns=["control", "questions"], rows=rows)}


def test_what_another_callback_has_measured_stands_beside_the_table_and_not_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [ResultsTable(), Beside()]
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(default_root_dir=tmp_path, callbacks=callbacks, enable_checkpointing=False, **options)
    trainer.test(Documented(), datamodule=Described(), verbose=False)
    held = json.loads((tmp_path / "results.json").read_text())
    assert held["controls"] == Beside().added_results()["controls"]
    assert held["rows"] == Documented().test_report()["rows"]
    assert "beside" in capsys.readouterr().out


class Described(BoringDataModule):
    description: ClassVar = {"data": "A", "protocol": "clean", "test": "64"}


def test_results_name_the_file_that_was_tested_and_what_it_went_through(tmp_path: Path) -> None:
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(default_root_dir=tmp_path, max_steps=2, callbacks=[ResultsTable()], **options)
    module, path = Documented(), tmp_path / "checkpoints" / "two.ckpt"
    trainer.fit(module, datamodule=Described())
    trainer.save_checkpoint(path)
    trainer.test(module, datamodule=Described(), ckpt_path=path, verbose=False, weights_only=True)
    held = json.loads((tmp_path / "results.json").read_text())
    assert set(held) == Results.__required_keys__
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert held["checkpoint"] == {"path": "checkpoints/two.ckpt", "sha256": digest, "step": 2, "epoch": 1}
    assert [held["training"], *held["init_from"]] == module.lineage()
    assert held["test"] == {"data_class": "Described", "data": "A", "protocol": "clean", "facts": {"test": "64"}}
    assert held["limits"] is None


@pytest.mark.parametrize(
    ("checkpoint", "shown"),
    [
        ("run/checkpoints/best.ckpt", "../checkpoints/best.ckpt"),
        ("run/test/checkpoints/best.ckpt", "checkpoints/best.ckpt"),
        ("other/checkpoints/best.ckpt", None),
        ("best.ckpt", None),
    ],
)
def test_a_checkpoint_of_the_same_run_is_named_from_the_results_on(
    checkpoint: str, shown: str | None, tmp_path: Path
) -> None:
    path = tmp_path / checkpoint
    assert shown_path(path, tmp_path / "run" / "test") == (shown or str(path))


def test_a_line_says_when_another_tests_results_are_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        run_test(Reporting(), ResultsTable(), tmp_path)
        run_test(Reporting(), ResultsTable(), tmp_path)
        assert "is replaced" not in caplog.text
        run_test(Reporting(), ResultsTable(), tmp_path, limit_test_batches=2)
    assert f"results.json is replaced: it held a test of weights in no file: {REPORT['title']}" in caplog.text


def test_where_nothing_is_true_no_table_is_promised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        run_test(Reporting(REPORT | {"rows": []}), ResultsTable(), tmp_path)
    assert "no table" not in caplog.text and "Results written" not in caplog.text
    assert f"What was tested is written to {tmp_path / 'results.json'}" in caplog.text


def test_a_fast_dev_run_leaves_the_results_of_a_real_one_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_test(Reporting(), ResultsTable(), tmp_path, fast_dev_run=True, limit_test_batches=None)
    assert list(tmp_path.iterdir()) == []
    assert REPORT["title"] in capsys.readouterr().out


def test_a_module_without_a_report_is_refused_before_the_test(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"BoringModel has no method test_report"):
        run_test(BoringModel(), ResultsTable(), tmp_path)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"title": "t", "columns": [], "rows": []}, "lacks notes"),
        ({"title": "t", "notes": [], "columns": ["a"], "rows": [{"a": 1, "b": 2}]}, r"row 0 .*'b'"),
    ],
)
def test_a_report_that_does_not_fit_is_refused(tmp_path: Path, report: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_test(Reporting(report), ResultsTable(), tmp_path)


@pytest.mark.parametrize("name", ["", "a/b"])
def test_the_name_is_a_bare_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ResultsTable(name=name)
