"""Splits as files: against the original file of VQA-RAD, and against what a training reads."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import pytest

from datamodules import VQARAD, OwnVQA
from datamodules.exported_splits import MANIFEST, exported
from datamodules.records import Split
from datamodules.vqa import Protocol
from datamodules.vqa_rad import SINGLE_FILE, TEST_FILE, TRAIN_FILE
from tests.datamodules.samples import row
from umd.cli import main


def ids(text: str) -> list[str]:
    return [line["id"] for line in csv.DictReader(io.StringIO(text))]


@pytest.mark.parametrize("form", ["single", "split"])
def test_those_of_vqa_rad_are_shipped(shared_data: Path, form: Literal["single", "split"]) -> None:
    root = shared_data / "vqa_rad"
    shipped = json.loads(resources.files("datamodules").joinpath("vqa_rad_splits.json").read_text())
    texts, refused = exported(VQARAD(str(root), annotations=form))
    assert not refused and set(shipped["protocols"]) == set(get_args(Protocol))
    for protocol, splits in shipped["protocols"].items():
        assert set(splits) == set(get_args(Split))
        for split, listed in splits.items():
            assert ids(texts[f"{protocol}_{split}.csv"]) == list(map(str, listed))
        read = VQARAD(str(root), annotations=form, protocol=protocol)
        assert [int(record.sample_id) for record in read.records("train")] == splits["train"]
    for part, name in (("train", "twins_in_train"), ("test", "test_with_twin")):
        assert ids(texts[f"{name}.csv"]) == list(map(str, shipped[part]["twins"]))
    assert len(resources.files("datamodules").joinpath("vqa_rad_splits.json").read_bytes()) < 2**20


def test_the_shipped_ones_are_what_they_are_said_to_be(shared_data: Path) -> None:
    root = shared_data / "vqa_rad"
    listed = json.loads(resources.files("datamodules").joinpath("vqa_rad_splits.json").read_text())["protocols"]
    train, test = (
        {one["qid"]: one for one in json.loads((root / name).read_text())} for name in (TRAIN_FILE, TEST_FILE)
    )
    asked = {
        (one["image_name"], str(one[form]).strip().lower())
        for one in json.loads((root / SINGLE_FILE).read_text())
        if one["phrase_type"].startswith("test")
        for form in ("question", "question_rephrase", "question_frame")
        if form in one
    }
    twins = {qid for qid, one in train.items() if (one["image_name"], one["question"].strip().lower()) in asked}
    tested = {one["image_name"] for one in test.values()}
    seen = {name: {*splits["train"], *splits["validation"]} for name, splits in listed.items()}
    assert all(set(splits["test"]) == set(test) for splits in listed.values())
    assert set(listed["paper"]["train"]) == set(train) and len(twins) == 292
    assert seen["clean"] == set(train) - twins
    assert seen["disjoint"] == {qid for qid in seen["clean"] if train[qid]["image_name"] not in tested}
    assert len(seen["hub"]) == 1793 and not any(train[qid]["phrase_type"] == "frame" for qid in seen["hub"])
    for name in ("clean", "hub", "disjoint"):
        images = [{train[qid]["image_name"] for qid in listed[name][part]} for part in ("train", "validation")]
        assert not images[0] & images[1]


def test_the_manifest_says_what_others_can_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "phantom", tmp_path / "ids"
    main(["data", "--data", "PhantomVQA", "--data.root", str(root), "--data.size", "30", "--export_split", str(out)])
    manifest = json.loads((out / MANIFEST).read_text())
    assert {path.name for path in out.iterdir()} == {*manifest["files"], MANIFEST}
    questions = {one["question"] for one in json.loads((root / SINGLE_FILE).read_text())}
    digests = {hashlib.sha256(text.strip().lower().encode()).hexdigest()[:16] for text in questions}
    shown = capsys.readouterr().out
    for name, facts in manifest["files"].items():
        content = (out / name).read_bytes()
        lines = list(csv.DictReader(io.StringIO(content.decode())))
        of_ids = hashlib.sha256("".join(f"{one}\n" for one in sorted(line["id"] for line in lines)).encode())
        assert hashlib.sha256(content).hexdigest() == facts["sha256"] and of_ids.hexdigest() == facts["ids_sha256"]
        assert (len(lines), len({line["image"] for line in lines})) == (facts["rows"], facts["images"])
        assert all((root / line["image"]).is_file() for line in lines) and name in shown
    free, with_twin = (manifest["files"][f"test_{name}.csv"]["rows"] for name in ("twin_free", "with_twin"))
    assert free + with_twin == manifest["files"]["paper_test.csv"]["rows"]
    assert {line["question_digest"] for line in csv.DictReader((out / "paper_test.csv").open())} <= digests


def test_a_protocol_that_the_files_do_not_allow_is_told(tmp_path: Path) -> None:
    (tmp_path / TRAIN_FILE).write_text(json.dumps([row(n, f"{n}.png", "Is it large?", "yes") for n in range(4)]))
    (tmp_path / TEST_FILE).write_text(json.dumps([row(9, "1.png", "Is it large?", "yes")]))
    texts, refused = exported(VQARAD(str(tmp_path), validation_fraction=0.5))
    assert set(refused) == {"hub"} and "is not the published one" in refused["hub"]
    manifest = json.loads(texts[MANIFEST])
    assert manifest["not_possible"] == refused and not any(name.startswith("hub") for name in texts)
    assert ids(texts["twins_in_train.csv"]) == ["1"] and "test_twin_free.csv" not in texts
    assert sorted(ids(texts["clean_train.csv"]) + ids(texts["clean_validation.csv"])) == ["0", "2", "3"]
    assert "50% of the images" in manifest["files"]["clean_validation.csv"]["how"]


def test_a_validation_split_of_ones_own_is_kept(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(f"image,question,answer\n{split}.png,Is it large?,yes\n")
    texts, _ = exported(OwnVQA(str(tmp_path)))
    assert set(texts) == {
        f"{protocol}_{split}.csv" for protocol in ("clean", "paper") for split in ("train", "validation")
    } | {MANIFEST}
    assert json.loads(texts[MANIFEST])["files"]["clean_validation.csv"]["how"] == "the published validation split"
