"""A mistake on the command line or in a config is one line that names it."""

from __future__ import annotations

import pytest

from tests.configs.test_configs import CONFIGS
from umd.cli import main
from umd.commands.train import run


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([f"--config={CONFIGS / 'data' / 'vqa_rad.yaml'}"], "umd: VQARAD: there is no value for root"),
        (["--model.encoder.vsion=resnet101"], "umd: VQAClassifier: there is no option --encoder.vsion=resnet101"),
        (["--data.protocol=cleen"], "umd: PhantomVQA: protocol: expected one of ['clean', 'paper']. Got value: cleen"),
    ],
)
def test_the_mistake_is_named_in_one_line(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["fit", f"--config={CONFIGS / 'vqa.yaml'}", *given])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[0] == said


def test_umd_data_names_a_mistake_alike(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", f"--config={CONFIGS / 'data' / 'vqa_rad.yaml'}"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "umd: VQARAD: there is no value for root",
        "Options: umd data --help, umd data --data.help CLASS",
    ]
