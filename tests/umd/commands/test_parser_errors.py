"""A mistake on the command line or in a config is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configs.test_configs import CONFIGS
from umd.cli import main
from umd.commands.train import run


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([f"--config={CONFIGS / 'data' / 'vqa_rad.yaml'}"], "umd: VQARAD: there is no value for --data.root"),
        (
            ["--model.encoder.vsion=resnet101"],
            "umd: VQAClassifier: there is no option --encoder.vsion=resnet101; did you mean --model.encoder.vision?",
        ),
        (
            ["--data.bach_size=3"],
            "umd: PhantomVQA: Option 'bach_size' is not accepted; did you mean --data.batch_size?",
        ),
        (
            ["--trainer.max_epoxhs=3"],
            "umd: unrecognized arguments: --trainer.max_epoxhs=3; did you mean --trainer.max_epochs?",
        ),
        (["--dta.seed=3"], "umd: unrecognized arguments: --dta.seed=3; did you mean --data.seed?"),
        (["--quite_another=3"], "umd: unrecognized arguments: --quite_another=3"),
        (["--seed_everything=x"], "umd: --seed_everything: expected bool or int. Got value: x"),
        (
            ["--trainer.limit_val_batches=x"],
            "umd: --trainer.limit_val_batches: expected int or float or null. Got value: x",
        ),
        (
            ["--trainer.max_epoch=3"],
            "umd: unrecognized arguments: --trainer.max_epoch=3; did you mean --trainer.max_epochs?",
        ),
        (
            ["--data.protocol=cleen"],
            "umd: PhantomVQA: protocol: expected one of 'clean', 'paper', 'hub', 'disjoint'. Got value: cleen",
        ),
    ],
)
def test_the_mistake_is_named_in_one_line(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["fit", f"--config={CONFIGS / 'vqa.yaml'}", *given])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[0] == said


@pytest.mark.parametrize("way", ["--data.{}", "--data.init_args.{}", "file"])
@pytest.mark.parametrize(
    "command", [["fit", f"--config={CONFIGS / 'retrieval.yaml'}"], ["data", "--data=PhantomRetrieval"]]
)
def test_a_renamed_option_leads_to_its_new_name(
    command: list[str], way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data: {class_path: datamodules.PhantomRetrieval, init_args: {other_texts: 3}}")
    given = [f"--config={overlay}"] if way == "file" else [way.format("other_texts"), "3"]
    with pytest.raises(SystemExit) as ended:
        main([*command, *given])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[0]
    assert said == "umd: PhantomRetrieval: other_texts is called --data.negatives now"


def test_a_class_that_moved_leads_to_its_public_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "--data=datamodules.of_old.PhantomVQA"])
    said = capsys.readouterr().err.splitlines()[0]
    assert said.endswith("datamodules.of_old.PhantomVQA is called datamodules.PhantomVQA now")


def test_umd_data_names_a_mistake_alike(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", f"--config={CONFIGS / 'data' / 'vqa_rad.yaml'}"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "umd: VQARAD: there is no value for --data.root",
        "Options: umd data --help, umd data --data.help CLASS",
    ]
