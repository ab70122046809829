"""What is mistyped behind a command of argparse's is one line, with the choices and what was probably meant."""

from __future__ import annotations

import pytest

from umd.cli import main

SCALES = "embedded, small, paper"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("reproduce table1 --scale smal", f"--scale: 'smal' is none of {SCALES}; did you mean small?"),
        ("reproduce table1 --scale", f"--scale: there is no value for it, of {SCALES}"),
        ("reproduce table1 --seeds 0 a", "--seeds: 'a' is no whole number"),
        ("reproduce table1 --dry_run=3", "--dry_run takes no value, so not '3'"),
        ("reproduce table1 --dry_run --step x", "--step does not go with --dry_run"),
        ("reproduce table1 --d", "--d could be --data_root, --datasets, --devices, --dry_run"),
        ("score a.csv --splitt test", "umd score has no option --splitt; did you mean --split?"),
        ("score a.csv --split tst", "--split: 'tst' is none of train, validation, test; did you mean test?"),
        ("compare", "umd compare needs runs: run folders (or their results.json)"),
        ("demo here", "umd demo takes no 'here'"),
        (
            "export",
            "umd export needs --ckpt_path FILE: a checkpoint, or the folder of a run; --out DIR: the folder, new or "
            "empty",
        ),
    ],
)
def test_the_mistake_is_one_line(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"umd: {said}\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("reproduce tabel1", "; did you mean table1?"),
        ("reproduce table9", ""),  # as near to each of them
        ("tset", "; did you mean test?"),
        ("fti", "; did you mean fit?"),
        ("nonsense", ""),
    ],
)
def test_what_was_meant_is_said_where_one_name_is_nearest(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("umd: ") and said.count("\n") == 1 and f"'{typed.split()[-1]}'" in said
    assert said.endswith(f"{meant}\n") and ("did you mean" in said) == bool(meant)
