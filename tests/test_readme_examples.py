"""The examples in the READMEs do what the READMEs say."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from callbacks import ModalityCoordination, ResultsTable
from tests.readmes import Block, blocks
from tests.synthetic import ENCODER, OPTIMIZER, RECONSTRUCTION, Batches, quiet_trainer, vqa_batch
from umd.cli import main
from umd.encoders import VISION, build_vision
from umd.modules import MRPretrain
from umd.modules.objectives import OBJECTIVES
from umd.modules.reconstruction import TRAIN


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that READMEs give the content of: where one is, and from which Python imports."""
    for block in blocks():
        if block.file:
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(block.file).stem, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(block: Block) -> dict[str, Any]:
    """What an example defines."""
    names: dict[str, Any] = {"__name__": Path(block.file).stem or "example"}
    exec(compile(block.body, f"{block.readme}, {block.file or 'example'}", "exec"), names)
    return names


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an example registers is forgotten again."""
    monkeypatch.setattr(VISION, "_entries", dict(VISION._entries))


EXAMPLES = [block for block in blocks() if block.language == "python"]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.file or block.readme)
def test_each_example_runs(block: Block, workplace: Path, own_registry: None, classifier_run: Path) -> None:
    (workplace / "runs" / "vqa").mkdir(parents=True)
    (workplace / "runs" / "vqa" / "default").symlink_to(classifier_run)
    for name, brightness in (("chest.jpg", 50), ("head.jpg", 200)):
        Image.new("L", (60, 70), brightness).save(workplace / name)
    run(block)


def example(file: str) -> dict[str, Any]:
    return run(next(block for block in EXAMPLES if block.file == file))


def test_the_encoder_of_the_example_encodes(own_registry: None) -> None:
    example("small_cnn.py")
    encoder = build_vision("small_cnn", image_size=64, options={"width": 16})
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 1 + 4 * 4, 16)


def test_the_objective_of_the_example_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    names = example("spread.py")
    square = torch.tensor([[1.0, 0], [0, 3], [-2, 0], [0, -1]])  # the nearest neighbour is sqrt 2 away
    torch.testing.assert_close(names["spread_loss"](square), torch.tensor(-math.log(2) / 2))
    monkeypatch.setitem(OBJECTIVES, "spread", lambda _: names["Spread"]())
    module = MRPretrain(ENCODER, OPTIMIZER, replace(RECONSTRUCTION, objectives={"mlm": 1.0, "spread": 0.5}))
    terms = module.terms(vqa_batch(), TRAIN)
    module.total(terms).backward()  # type: ignore[no-untyped-call]
    assert list(terms) == ["mlm", "spread"]


def test_the_task_of_the_example_trains_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("openness.py")["Openness"](ENCODER, OPTIMIZER)
    trainer = quiet_trainer(tmp_path, ModalityCoordination(), ResultsTable(), max_epochs=1)
    data = Batches([vqa_batch(seed=seed) for seed in range(2)])
    trainer.fit(module, datamodule=data)
    assert {"coordination/k_vision", "coordination/k_language"} <= trainer.callback_metrics.keys()
    trainer.test(module, datamodule=data, verbose=False)
    main(["compare", str(tmp_path)])
    assert "open or closed" in capsys.readouterr().out


def test_the_data_set_of_the_example_is_read(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "own" / "images").mkdir(parents=True)
    lines = []
    for number in range(6):
        Image.new("L", (40, 40), 40 * number).save(workplace / "own" / "images" / f"{number}.png")
        split = "train" if number < 4 else "test"
        lines.append(f"{split}\t{number}.png\tIs it bright?\t{'yes' if number > 2 else 'no'}")
    (workplace / "own" / "questions.txt").write_text("\n".join([*lines, "trian\t0.png\tWhat?\tgrey"]))
    with pytest.warns(UserWarning, match=r"1 x line that is no question of a split, left out: questions\.txt:7"):
        main(["data", "--config", "ward.yaml", "--data.root", "own", "--out", "facts"])
    facts = json.loads((workplace / "facts" / "summary.json").read_text())
    assert {split: found["rows"] for split, found in facts["splits"].items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


def test_each_yaml_is_yaml() -> None:
    for block in blocks():
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.body), dict), block
