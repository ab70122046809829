"""What is read back of `predictions.csv`."""

from __future__ import annotations

from pathlib import Path

from umd.metrics.predictions import question_groups, read_predictions


def test_flags_are_flags_also_where_one_is_empty(tmp_path: Path) -> None:
    lines = ["index,question_id,correct,closed,has_twin", "0,a,True,False,False", "1,b,,,", "2,c,False,True,False"]
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    table = read_predictions(tmp_path)
    assert table is not None and table["question_id"].tolist() == ["a", "c"]
    groups = {name: members.tolist() for name, members in question_groups(table).items()}
    assert groups == {"open": [True, False], "closed": [False, True], "overall": [True, True]}
