"""An exported model says what its checkpoint says, from the raw file on, wherever it is run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

import umd
from umd.cli import main
from umd.files import UserError
from umd.inference import Model, Reply, exporting
from umd.inference.exporting import export
from umd.inference.folder import Weights, check_place
from umd.inference.model_card import results_beside
from umd.inference.program import OnnxProgram
from umd.inference.weights import read_weights, save_weights

QUESTIONS = [
    "Where is the lesion?",
    "Is it large?",
    "What is shown in this image, and on which side of the body is it?",
]
FORMATS = get_args(Weights)
SLOWER = ("classification_run", "retrieval_run")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A JPEG in colour, a PNG of 12 bits in 16, and a DICOM file with a window; none of them square or small."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    rough = Image.fromarray(random.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    rough.resize((173, 119), Image.Resampling.BICUBIC).save(folder / "a.jpg", quality=85)
    grey = np.asarray(rough.convert("L").resize((97, 142), Image.Resampling.BICUBIC))
    deep = (grey.astype(np.uint16) << 4) | random.integers(0, 16, grey.shape, dtype=np.uint16)
    Image.fromarray(deep).save(folder / "b.png")
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns, data.SamplesPerPixel = *deep.shape, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME1", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.WindowCenter, data.WindowWidth, data.RescaleSlope, data.RescaleIntercept = 900, 1500, 1, -1024
    data.PixelData = deep.tobytes()
    data.save_as(folder / "c.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Weights], tuple[Path, Path]]:
    """A run and its export, made once."""
    made: dict[tuple[str, Weights], Path] = {}

    def get(kind: str, weights: Weights) -> tuple[Path, Path]:
        run: Path = request.getfixturevalue(kind)
        if (kind, weights) not in made:
            made[kind, weights] = export(run, tmp_path_factory.mktemp("exported") / weights, weights=weights)
        return run, made[kind, weights]

    return get


def ask(model: Model, images: list[Path]) -> list[Reply]:
    """Everything that a model of its task says to the images, in batches of several sizes and lengths."""
    if model.settings.task == "retrieval":
        return [model.rank(image, [*QUESTIONS, "a head"], batch_size=3) for image in images]
    everything = model.classify if model.settings.task == "classification" else model.answer
    replies = [everything(image, QUESTIONS[0], top=99) for image in images]
    replies += everything(images, QUESTIONS, top=99)
    replies += everything([*images, *images], [*QUESTIONS, *reversed(QUESTIONS)], top=99, batch_size=5)
    return replies


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        pytest.param(kind, weights, marks=[pytest.mark.slow] * (weights != "safetensors" and kind in SLOWER))
        for kind in ("classifier_run", "generator_run", *SLOWER)
        for weights in FORMATS
    ],
)
def test_answers_are_the_checkpoints(
    kind: str, weights: Weights, exported: Callable[[str, Weights], tuple[Path, Path]], images: list[Path]
) -> None:
    run, folder = exported(kind, weights)
    expected, found = ask(umd.load(run), images), ask(umd.load(folder), images)
    if weights == "safetensors":
        assert found == expected
        return
    for one, other in zip(found, expected, strict=True):
        mine, theirs = ({answer.text: answer.probability for answer in reply.answers} for reply in (one, other))
        assert mine.keys() == theirs.keys()
        np.testing.assert_allclose([mine[text] for text in theirs], list(theirs.values()), atol=1e-4, rtol=0)


def test_onnx_answers_raw_files_in_a_process_without_torch(
    exported: Callable[[str, Weights], tuple[Path, Path]], images: list[Path]
) -> None:
    run, folder = exported("classifier_run", "onnx")
    names = [str(image) for image in images]
    code = f"""
import json, sys
from umd.cli import main
main(["answer", "--model", {str(folder)!r}, "--image", *{names}, "--question", {QUESTIONS[0]!r}, "--json", "--top=99"])
heavy = {{"torch", "torchvision", "transformers", "lightning"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    replies = umd.load(run).answer(images, QUESTIONS[0], top=99)
    for record, reply in zip(json.loads(done.stdout), replies, strict=True):
        found = {answer["answer"]: answer["probability"] for answer in record["answers"]}
        assert record["image"] == reply.image
        for answer in reply.answers:
            assert found[answer.text] == pytest.approx(answer.probability, abs=1e-4)


def test_vectors_come_along_with_the_weights_alone(contrastive_run: Path, images: list[Path], tmp_path: Path) -> None:
    model, written = umd.load(contrastive_run), umd.load(export(contrastive_run, tmp_path / "model"))
    expected, found = (one.embed(images=list(images), texts=QUESTIONS) for one in (model, written))
    for mine, theirs in ((found.images, expected.images), (found.texts, expected.texts)):
        assert mine is not None and theirs is not None and np.array_equal(mine, theirs)
    with pytest.raises(UserError, match=r"umd\.ContrastivePretrain, which gives no answers: --format safetensors"):
        export(contrastive_run, tmp_path / "other", weights="onnx")


def test_what_is_written_can_be_given_away(exported: Callable[[str, Weights], tuple[Path, Path]]) -> None:
    """A card with everything on it, and no folder of the machine that it was made on."""
    for weights in FORMATS:
        run, folder = exported("classifier_run", weights)
        for file in folder.iterdir():
            content = file.read_bytes()
            for private in (str(run), str(Path(umd.__file__).parent), str(Path(torch.__file__).parent)):
                assert private.encode() not in content, file
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert umd.NOTICE in card and "must not be used for" in card and "need not sum to 1" in card
        assert "| umd.VQAClassifier | phantom | clean | 0 | this one |" in card
        assert ("## Without this package" in card) == (weights != "safetensors")


def test_results_are_on_the_card_if_they_are_the_checkpoints(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    assert results_beside(checkpoint, "abc") == (None, "It was not tested: no results lay beside the checkpoint.")
    held: dict[str, Any] = {
        "schema": 1,
        "checkpoint": {"path": "checkpoints/best.ckpt", "sha256": "abc"},
        "limits": None,
    }
    beside = tmp_path / "run" / "results.json"
    beside.write_text(json.dumps(held))
    assert results_beside(checkpoint, "abc") == (held, "Tested was this very checkpoint.")
    assert results_beside(checkpoint, "abd")[0] is None
    beside.write_text(json.dumps({**held, "limits": {"batches": 2, "of": 9}}))
    assert "Only 2 of 9 batches" in results_beside(checkpoint, "abc")[1]
    beside.write_text(json.dumps({"title": "from before"}))
    assert "do not say which checkpoint" in results_beside(checkpoint, "abc")[1]
    beside.write_text("{")
    with pytest.raises(UserError, match=r"results.json' is broken"):
        results_beside(checkpoint, "abc")


# The folder


def test_a_folder_is_written_whole_or_not_at_all(
    classifier_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "model"
    command = ["export", "--ckpt_path", str(classifier_run), "--out", str(out)]
    main(command)
    assert "model.safetensors" in capsys.readouterr().out
    kept = {file.name: file.read_bytes() for file in out.iterdir()}

    def others(model: Model, path: Path) -> None:
        weights = exporting.stage_network(model).stage.state_dict()
        save_weights({**weights, "head.last.bias": weights["head.last.bias"] + 1e-3}, path)

    monkeypatch.setattr(exporting, "writers", {"safetensors": others})
    with pytest.raises(SystemExit):
        main([*command, "--overwrite"])
    assert "off the checkpoint's" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == kept
    assert list(out.parent.iterdir()) == [out]


def test_nothing_but_an_earlier_export_is_replaced(classifier_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "settings.json").write_text('{"format": "another"}')
    for name, overwrite, message in (
        ("file", True, "is a file"),
        ("mine", True, "no exported model: give another folder"),
    ):
        with pytest.raises(UserError, match=message):
            check_place(tmp_path / name, overwrite)
    (tmp_path / "new").mkdir()
    first = export(classifier_run, tmp_path / "new")
    (first / "README.md").write_text("edited")
    with pytest.raises(UserError, match="--overwrite puts this one in its place"):
        export(classifier_run, tmp_path / "new")
    export(classifier_run, tmp_path / "new", overwrite=True)
    assert (first / "README.md").read_text(encoding="utf-8") != "edited"


def test_a_damaged_folder_is_said_to_be_one(
    exported: Callable[[str, Weights], tuple[Path, Path]], tmp_path: Path
) -> None:
    def changed(weights: Weights, **files: bytes | None) -> Path:
        _, folder = exported("classifier_run", weights)
        copy = tmp_path / str(len(list(tmp_path.iterdir())))
        copy.mkdir()
        for file in folder.iterdir():
            content = files.get(file.name.replace(".", "_"), file.read_bytes())
            if content is not None:
                (copy / file.name).write_bytes(content)
        return copy

    settings = json.loads((exported("classifier_run", "safetensors")[1] / "settings.json").read_text())
    later = json.dumps({**settings, "version": 9}).encode()
    mute = json.dumps({name: value for name, value in settings.items() if name != "link"}).encode()
    for folder, message in (
        (changed("safetensors", settings_json=later), "version 9 of exported models, and this umd reads version 1"),
        (changed("safetensors", settings_json=mute), "does not say 'link'"),
        (changed("safetensors", names_json=None), r"there is no names\.json"),
        (changed("safetensors", tokenizer_json=b"{"), r"tokenizer\.json' is broken"),
        (changed("safetensors", model_safetensors=None), r"there is no model\.safetensors"),
        (changed("safetensors", model_safetensors=b"half"), "holds no whole weights"),
        (changed("onnx", model_onnx=b"half"), "no whole ONNX model"),
        (changed("onnx", model_onnx_data=None), "no whole ONNX model"),
        (changed("torch", model_pt2=b"half"), r"no whole torch\.export program"),
        (changed("safetensors", settings_json=b"{}"), "none that umd export wrote"),
    ):
        with pytest.raises(UserError, match=message):
            umd.load(folder)
    with pytest.raises(UserError, match=r"cannot be used by this onnxruntime; 'cpu' always can"):
        umd.load(exported("classifier_run", "onnx")[1], device="xpu")


def test_packages_that_lack_are_named_before_anything_is_computed(
    classifier_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        main(["export", "--ckpt_path", str(classifier_run), "--out", str(tmp_path / "model"), "--format", "onnx"])
    told = "umd: --format onnx needs onnxruntime, onnxscript, not installed here: pip install 'umd[onnx]'\n"
    assert capsys.readouterr().err == told
    with pytest.raises(UserError, match=r"onnxruntime, which is not installed: pip install .umd\[onnx\]"):
        OnnxProgram(tmp_path / "model.onnx", "cpu", None)


def test_a_tensor_with_two_names_is_kept_once(tmp_path: Path) -> None:
    shared = torch.randn(300, 400)
    weights = {"a": shared, "b": shared, "half": shared[:150], "turned": shared.T, "none": torch.empty(0)}
    save_weights(weights, tmp_path / "weights")
    (tmp_path / "any").touch()
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "any").stat().st_mode, "as readable as other files"
    found = read_weights(tmp_path / "weights")
    assert found.keys() == weights.keys() and all(found[name].equal(value) for name, value in weights.items())
    assert (tmp_path / "weights").stat().st_size < 4 * 300 * 400 * 2.6  # whole, half, and turned
