"""A table's protocol is that of the training: what a checkpoint says of all stages behind it, and what follows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from umd.files import UserError
from umd.modules.lineage import check_protocol, heading, lineage_behind, lineage_in, noted, protocol_on, sees_more
from umd.protocols import UNKNOWN, Training

TESTED = {
    "data": "VQA-RAD",
    "protocol": "clean",
    "test": "451",
    "twins left out of train": "292",
    "test without twins": "165",
}


def training(data: str | None, protocol: str | None, stage: str = "umd.VQAClassifier", **facts: str) -> Training:
    return Training(
        stage=stage, data=data, protocol=protocol, facts=facts, seed=0, settings="s", path=None, sha256=None
    )


CLEAN = training("VQA-RAD", "clean", train="2523", validation="249", **{"twins left out of train": "292"})
PAPER = training("VQA-RAD", "paper", train="3064", validation="451")
CAPTIONS = training("ROCO", None, "umd.MRPretrain")


def test_paper_sees_most_disjoint_least_and_what_is_not_known_is_no_subset() -> None:
    order = ["disjoint", "hub", "clean", "paper"]
    pairs = [(earlier, now) for earlier in order for now in order]
    assert [sees_more(*pair) for pair in pairs] == [order.index(one) > order.index(other) for one, other in pairs]
    assert sees_more("mine", "clean") and sees_more("clean", "mine") and not sees_more("mine", "mine")


def test_a_test_under_the_trainings_protocol_is_titled_by_it() -> None:
    title, notes = heading([CLEAN, CAPTIONS], TESTED)
    assert title == "VQA-RAD, protocol clean"
    assert notes == [
        "train: 2523",
        "validation: 249",
        "twins left out of train: 292",
        "test: 451",
        "test without twins: 165",
    ]


def test_a_test_says_how_many_negatives_a_contrastive_pre_training_had() -> None:
    clip = training("ROCO", None, "umd.MRPretrain", negatives="31 for each pair")
    for lineage in ([CLEAN, clip], [PAPER, CAPTIONS, clip]):
        _, notes = heading(lineage, TESTED)
        assert notes[-1] == "negatives of umd.MRPretrain: 31 for each pair"


def test_a_test_says_whose_images_an_earlier_training_left_out() -> None:
    without = training("MedPix", None, "umd.MRPretrain", **{"left out": "13 images of VQA-RAD (validation, test)"})
    for lineage in ([CLEAN, without], [PAPER, CAPTIONS, without], [CLEAN, training("SLAKE", "clean"), without]):
        _, notes = heading(lineage, TESTED)
        assert notes[-1] == "left out of umd.MRPretrain: 13 images of VQA-RAD (validation, test)"
    assert not [note for note in heading([CLEAN, CAPTIONS], TESTED)[1] if note.startswith("left out")]


@pytest.mark.parametrize(
    ("lineage", "title"),
    [
        ([PAPER], "VQA-RAD, trained under paper, tested on clean's questions"),
        ([PAPER, CLEAN], "VQA-RAD, trained under paper, tested on clean's questions"),
        ([], "VQA-RAD, training protocol unknown, tested on clean's questions"),
        ([training(None, UNKNOWN)], "VQA-RAD, training protocol unknown, tested on clean's questions"),
        ([CLEAN, training(None, UNKNOWN)], "VQA-RAD, training protocol unknown, tested on clean's questions"),
        ([training("SLAKE", "paper")], "VQA-RAD, trained on SLAKE under paper, tested on clean's questions"),
        (
            [training("SLAKE", "clean"), PAPER],
            "VQA-RAD, trained on SLAKE under clean, earlier stages trained under paper, tested on clean's questions",
        ),
        ([training("ROCO", None)], "VQA-RAD, trained on ROCO, tested on clean's questions"),
    ],
)
def test_any_other_test_is_titled_as_what_it_is(lineage: list[Training], title: str) -> None:
    found, notes = heading(lineage, TESTED)
    assert found == title
    # Of what the clean protocol leaves out, a training under another one has left nothing out.
    assert ("twins left out of train: 292" in notes) == bool(lineage and lineage[0] is CLEAN)
    assert "test without twins: 165" in notes
    assert ("train: 3064" in notes) == bool(lineage and lineage[0] is PAPER)


def test_data_without_protocols_is_titled_as_before() -> None:
    assert heading([], {"data": "ROCO", "test": "2000"}) == ("ROCO", ["test: 2000"])
    assert heading([], {}) == ("unnamed data", [])
    found = heading([training("ROCO", None, train="9")], {"data": "ROCO", "test": "2000"})
    assert found == ("ROCO", ["train: 9", "test: 2000"])


def test_the_loosest_protocol_that_saw_a_data_set_counts() -> None:
    assert protocol_on([CLEAN, PAPER, CAPTIONS], "VQA-RAD") == "paper"
    assert protocol_on([CLEAN, CAPTIONS], "VQA-RAD") == "clean"
    assert protocol_on([CAPTIONS], "VQA-RAD") is None
    assert protocol_on([CLEAN, training(None, UNKNOWN)], "VQA-RAD") == UNKNOWN


@pytest.mark.parametrize("behind", [[PAPER], [CLEAN, PAPER]])
def test_weights_that_have_seen_more_are_refused(behind: list[Training]) -> None:
    with pytest.raises(
        UserError, match=r"'a.ckpt' was trained on VQA-RAD under protocol paper .*--data.protocol paper"
    ):
        check_protocol(behind, CLEAN, "a.ckpt")


@pytest.mark.parametrize(
    ("behind", "own"),
    [
        ([CAPTIONS], CLEAN),
        ([CLEAN], PAPER),
        ([PAPER], PAPER),
        ([training(None, UNKNOWN)], CLEAN),
        ([training("SLAKE", "paper")], CLEAN),
        ([PAPER], CAPTIONS),
    ],
)
def test_what_has_seen_no_more_is_let_through(behind: list[Training], own: Training) -> None:
    check_protocol(behind, own, "a.ckpt")


def test_the_settings_digest_is_of_all_but_chance_and_place() -> None:
    def settings(seed: int = 0, lr: float = 1e-5, **data: Any) -> dict[str, Any]:  # noqa: ANN401
        return {
            "seed_everything": seed,
            "model": {"init_args": {"optimizer": {"lr": lr}, "reconstruction": {"mask_seed": seed}, "init_from": None}},
            "data": {"init_args": {"protocol": "clean", "seed": seed, "root": "/data", **data}},
            "trainer": {"max_steps": 9, "callbacks": [{"class_path": "X", "init_args": {"seed": seed}}]},
        }

    same = noted(CLEAN, settings())
    assert (same["seed"], same["data"]) == (0, "VQA-RAD")
    assert noted(CLEAN, settings(seed=3, root="/elsewhere"))["settings"] == same["settings"]
    assert noted(CLEAN, settings(lr=2e-5))["settings"] != same["settings"]
    assert noted(CLEAN, settings(protocol="paper"))["settings"] != same["settings"]
    assert noted(PAPER, settings())["settings"] != same["settings"]
    without = noted(CLEAN, settings(exclude_images_of=["VQARAD=/data/vqa_rad"]))["settings"]
    assert without == noted(CLEAN, settings(exclude_images_of=["VQARAD=/elsewhere"]))["settings"]
    assert without not in (
        same["settings"],
        noted(CLEAN, settings(exclude_images_of=["SLAKE=/data/slake"]))["settings"],
    )


def test_a_checkpoint_of_the_past_says_what_it_can(tmp_path: Path) -> None:
    def old(init_args: dict[str, Any], init_from: str | None = None) -> dict[str, Any]:
        data = {"class_path": "datamodules.Any", "init_args": init_args}
        return {"state_dict": {}, "umd": {"data": data, "started_from": {"init_from": init_from}}}

    assert lineage_in(old({"protocol": "clean"}))[0]["protocol"] == UNKNOWN
    assert lineage_in(old({"root": "x"}, init_from="before.ckpt"))[0]["protocol"] == UNKNOWN
    assert lineage_in(old({"root": "x"}))[0]["protocol"] is None, "captions have no protocol"
    assert lineage_in({"state_dict": {}})[0]["protocol"] == UNKNOWN
    path = tmp_path / "old.ckpt"
    torch.save(old({"root": "x"}), path)
    (found,) = lineage_behind(path)
    assert (found["path"], found["sha256"]) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
