"""Where a config is found that is not where the user says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.configs.test_configs import CONFIGS
from umd.cli import main
from umd.commands.configs import RENAMED, find_config, is_inline, settings_in, shipped_folder, with_found_configs
from umd.files import UserError

# All that ever was a config's path in a published command, below configs/.
ONCE = """
    ablation/image_only.yaml ablation/image_only_resnet101.yaml ablation/text_only.yaml ablation/text_only_lstm.yaml
    ablation/text_only_roberta.yaml ablation/text_only_scibert.yaml calibrate.yaml callbacks/pictures.yaml
    classification.yaml contrastive_pretrain.yaml data/melinda.yaml data/roco.yaml data/roco_medicat.yaml
    data/slake.yaml data/vqa_med_2019.yaml data/vqa_rad.yaml pretrain.yaml recipe/calibrate_melinda.yaml
    recipe/calibrate_roco.yaml recipe/calibrate_slake.yaml recipe/calibrate_vqa_med_2019.yaml
    recipe/calibrate_vqa_rad.yaml recipe/classification_melinda.yaml recipe/contrastive_pretrain_roco.yaml
    recipe/pretrain.yaml recipe/retrieval_roco.yaml recipe/vqa_generation_slake.yaml recipe/vqa_generation_vqa_rad.yaml
    recipe/vqa_slake.yaml recipe/vqa_vqa_med_2019.yaml recipe/vqa_vqa_rad.yaml retrieval.yaml scale/ggp.yaml
    scale/paper.yaml scale/small.yaml small/calibrate.yaml small/classification.yaml small/pretrain.yaml
    small/retrieval.yaml small/vqa.yaml vqa.yaml vqa_generation.yaml
""".split()


def test_every_path_that_there_was_is_there_or_leads_to_the_new_one() -> None:
    assert len(ONCE) == 42
    lost = [name for name in ONCE if not (CONFIGS / RENAMED.get(name, name)).is_file()]
    assert lost == []
    assert set(RENAMED) <= set(ONCE)
    assert not [name for name in RENAMED if (CONFIGS / name).exists()], "hidden by a file of the old name"


@pytest.mark.parametrize(
    ("given", "now"),
    [
        ("configs/scale/small.yaml", "configs/small/encoders.yaml"),
        ("recipe/vqa_slake.yaml", "paper/vqa/slake.yaml"),
        ("/elsewhere/configs/recipe/pretrain.yaml", "/elsewhere/configs/paper/pretrain.yaml"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "data"])
def test_an_old_name_is_one_line_with_the_new_one(
    command: str, given: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", "configs/vqa.yaml", "--config", given])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"umd: --config: {given} is {now} now"


def test_a_path_that_is_not_here_is_taken_from_umds_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_folder().samefile(CONFIGS)
    with caplog.at_level(logging.INFO, logger="umd"):
        for given in ("configs/data/slake.yaml", "data/slake.yaml", "./configs/data/slake.yaml"):
            assert find_config(given).samefile(CONFIGS / "data" / "slake.yaml")
    assert len(caplog.messages) == 3 and all(
        given in caplog.text for given in ("configs/data/slake.yaml", str(CONFIGS))
    )

    own = tmp_path / "configs" / "data" / "slake.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("seed_everything: 1\n")
    caplog.clear()
    assert find_config("configs/data/slake.yaml").samefile(own) and caplog.messages == []


@pytest.mark.parametrize("given", ["/absent/configs/vqa.yaml", "mine/configs/vqa.yaml", "configs/../pyproject.toml"])
def test_another_folders_config_is_never_replaced_by_umds_own(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"there is no file '{given}'"):
        find_config(given)


def test_a_slip_of_the_pen_is_answered_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no file 'configs/vqa_raad.yaml'; .* there is configs/data/vqa_rad.yaml"):
        find_config("configs/vqa_raad.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model:\n  a: [1\n  b: 2\n", "line 3: not YAML: expected ',' or ']'"),
        (b"model:\n\ta: 1\n", "line 2: not YAML: found character '.t' that cannot start any token"),
        (b"a: \xff\n", r"is not UTF-8 .byte 3.: save it as UTF-8"),
        (b"a: \x00\n", "is not YAML: "),
    ],
)
def test_a_config_that_cannot_be_read_says_where(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(UserError, match=f"--config: '{tmp_path / 'bad.yaml'}'.* {said}"):
        settings_in(str(tmp_path / "bad.yaml"))


def test_settings_on_the_command_line_are_left_alone(tmp_path: Path) -> None:
    inline = '{"data": {"init_args": {"root": "' + "x" * 5000 + '"}}}'
    assert is_inline(inline) and is_inline("seed_everything: 1") and is_inline("model:\n  init_args: {}")
    odd = tmp_path / "12: noon.yaml"
    odd.write_text("seed_everything: 1\n")
    assert not is_inline(str(odd)) and not is_inline("configs/vqa.yaml")
    given = [f"--config={inline}", "-c", str(odd), "--name", "--config", str(CONFIGS / "vqa.yaml"), "--config"]
    assert with_found_configs(given) == [
        f"--config={inline}",
        f"--config={odd}",
        "--name",
        f"--config={CONFIGS / 'vqa.yaml'}",
        "--config",
    ]
