import json
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.umd.released.released_state import TINY, Shape, Sizes, released_shapes, released_state
from umd.checkpoints import hand_over, read_checkpoint
from umd.encoders import EncoderConfig, Features
from umd.files import UserError
from umd.losses.feature_reconstruction import feature_loss
from umd.losses.masked_image import masked_image_loss, patchify
from umd.losses.masked_language import masked_language_loss
from umd.losses.matching import matching_loss
from umd.masking import PatchMask
from umd.modules import Classification, MRPretrain, Retrieval, TDCalib, VQAClassifier
from umd.released.convert import convert, main, read_released
from umd.released.layout import Heads
from umd.released.stage import Origin
from umd.run.settings import settings_of

PRETRAIN = frozenset({"mlm", "mim", "itm", "feal"})
TINY_HEADS = Heads(vision_heads=4, text_heads=4, fusion_heads=4, decoder_heads=2)
HEAD_OPTIONS = "--vision_heads 4 --text_heads 4 --fusion_heads 4 --decoder_heads 2".split()
TOLERANCE = 1e-5
Reference = dict[str, dict[str, Tensor]]


def draw(shape: Shape) -> Tensor:
    return torch.randn(shape) * 0.1


def without_memory(shape: Shape) -> Tensor:
    return torch.zeros(1).expand(shape)


def with_teacher(student: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**student, **{f"ema.module.{name}": value + 1 for name, value in student.items()}}


def write(state: Mapping[str, Tensor], path: Path, **beside: object) -> Path:
    torch.save({"state_dict": dict(state), **beside}, path)
    return path


def converted(
    state: Mapping[str, Tensor],
    folder: Path,
    origin: Origin = "umd",
    answers: list[str] | None = None,
    classes: list[str] | None = None,
) -> Path:
    out = folder / "converted.ckpt"
    torch.save(convert(state, origin, TINY_HEADS, answers, classes).checkpoint, out)
    return out


@pytest.fixture(scope="module")
def reference() -> Reference:
    shared = os.environ.get("UMD_SHARED", Path(__file__).resolve().parents[4] / "shared")
    folder = Path(shared) / "reference" / "official_tiny"
    if not folder.is_dir():
        pytest.skip(f"reference of the released code not found: no folder {folder} (set UMD_SHARED)")
    parts = {name: load_file(folder / f"{name}.safetensors") for name in ("student", "inputs", "outputs")}
    figures = json.loads((folder / "figures.json").read_text())["losses_unweighted_when_teacher_is_student"]
    return {**parts, "losses": {name: torch.tensor(value) for name, value in figures.items()}}


@pytest.fixture(scope="module")
def pretrained(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> MRPretrain:
    path = converted(reference["student"], tmp_path_factory.mktemp("reference"))
    return MRPretrain.load_from_checkpoint(path, map_location="cpu").eval()


@pytest.fixture(scope="module")
def mask(reference: Reference) -> PatchMask:
    return PatchMask(reference["inputs"]["ids_keep"], reference["inputs"]["mim_mask"].bool())


def encode(model: MRPretrain, inputs: Mapping[str, Tensor], mask: PatchMask | None) -> Features:
    ids = inputs["text_ids"] if mask is None else inputs["text_ids_mlm"]
    features: Features = model.encoder(inputs["image"], ids, inputs["text_masks"].bool(), mask)
    return features


def agrees(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_the_documented_layout_is_that_of_the_reference(reference: Reference) -> None:
    shapes = {name: tuple(value.shape) for name, value in reference["student"].items()}
    assert shapes == released_shapes(TINY, PRETRAIN)


@torch.no_grad()
def test_each_encoder_alone_agrees_with_the_released_code(reference: Reference, pretrained: MRPretrain) -> None:
    inputs, outputs = reference["inputs"], reference["outputs"]
    assert not inputs["text_masks"].all(), "padding is among what is compared"
    agrees(pretrained.encoder.vision(inputs["image"]), outputs["vision.unmasked"])
    agrees(pretrained.encoder.text(inputs["text_ids"], inputs["text_masks"].bool()), outputs["text.encoder"])


@pytest.mark.parametrize("which", ["unmasked", "masked"])
@torch.no_grad()
def test_fused_and_pooled_features_agree_with_the_released_code(
    reference: Reference, pretrained: MRPretrain, mask: PatchMask, which: str
) -> None:
    outputs = reference["outputs"]
    features = encode(pretrained, reference["inputs"], mask if which == "masked" else None)
    pooled = pretrained.encoder.pool(features)
    agrees(features.text, outputs[f"{which}.multi_modal_text_feats"])
    agrees(features.image, outputs[f"{which}.multi_modal_image_feats"])
    agrees(pooled.text, outputs[f"{which}.multi_modal_text_cls_feats"])
    agrees(pooled.image, outputs[f"{which}.multi_modal_image_cls_feats"])
    agrees(pooled.joint, outputs[f"{which}.multi_modal_cls_feats"])


@torch.no_grad()
def test_decoders_and_their_losses_agree_with_the_released_code(
    reference: Reference, pretrained: MRPretrain, mask: PatchMask
) -> None:
    inputs, outputs, losses = reference["inputs"], reference["outputs"], reference["losses"]
    features = encode(pretrained, inputs, mask)
    patches = patchify(inputs["image"], 8)
    predicted = pretrained.get_submodule("image_decoder")(features.image, mask)
    agrees(patches, outputs["patched_images"])
    agrees(predicted, outputs["mim_logits"])
    agrees(masked_image_loss(predicted, patches, mask.masked), losses["mim"])
    agrees(pretrained.get_submodule("text_decoder")(features.text), outputs["mlm_logits"])
    agrees(
        masked_language_loss(pretrained.get_submodule("text_decoder"), features.text, inputs["text_labels_mlm"]),
        losses["mlm"],
    )


@torch.no_grad()
def test_the_text_feature_loss_over_all_positions_is_the_released_one(
    reference: Reference, pretrained: MRPretrain, mask: PatchMask
) -> None:
    student = encode(pretrained, reference["inputs"], mask).text
    teacher = encode(pretrained, reference["inputs"], None).text
    found = feature_loss(pretrained.get_submodule("text_feature_projection"), student, teacher, None)
    agrees(found, reference["losses"]["feal"])


@torch.no_grad()
def test_matching_agrees_with_the_released_code(reference: Reference, pretrained: MRPretrain) -> None:
    inputs, match = reference["inputs"], reference["outputs"]["itm_labels"].long()
    image = torch.where(match.bool()[:, None, None, None], inputs["image"], inputs["false_image_0"])
    pooled = pretrained.encoder.pool(encode(pretrained, {**inputs, "image": image}, None))
    logits = pretrained.get_submodule("matching_head")(pooled.joint)
    agrees(logits, reference["outputs"]["itm_logits"])
    agrees(matching_loss(logits, match), reference["losses"]["itm"])


def body_of(reference: Reference) -> dict[str, Tensor]:
    """The reference's encoder."""
    return {k: v for k, v in reference["student"].items() if k.split("_")[0] not in ("mlm", "mim", "itm", "feal")}


def pooled_by_hand(reference: Reference, how: str) -> Tensor:
    """z from the released code's fused features: the first token, or the mean over all or over real tokens."""
    student, pooled = reference["student"], []
    for modality, features in (("language", "text"), ("vision", "image")):
        tokens = reference["outputs"][f"unmasked.multi_modal_{features}_feats"]
        if how == "first":
            token = tokens[:, 0]
        elif how == "real" and features == "text":
            real = reference["inputs"]["text_masks"].bool()
            token = torch.stack([row[kept].mean(0) for row, kept in zip(tokens, real, strict=True)])
        else:
            token = tokens.mean(1)
        pooler = f"multi_modal_{modality}_pooler.dense"
        pooled.append(torch.tanh(nn.functional.linear(token, student[f"{pooler}.weight"], student[f"{pooler}.bias"])))
    return torch.cat(pooled, 1)


@pytest.mark.parametrize("task", ["vqa", "cls"])
@pytest.mark.parametrize("origin", ["umd", "m3ae"])
@torch.no_grad()
def test_answer_and_class_heads_read_what_their_origin_pools(
    reference: Reference, tmp_path: Path, origin: Origin, task: str
) -> None:
    head = nn.Sequential(nn.Linear(96, 96), nn.LayerNorm(96), nn.GELU(), nn.Linear(96, 3))
    state = {**body_of(reference), **{f"{task}_head.{name}": value for name, value in head.state_dict().items()}}
    names = ["yes", "no", "left lung"]
    model: VQAClassifier | Classification
    if task == "vqa":
        model = VQAClassifier.load_from_checkpoint(converted(state, tmp_path, origin, names), map_location="cpu")
        assert model.answers == tuple(names)
    else:
        path = converted(state, tmp_path, origin, classes=names)
        model = Classification.load_from_checkpoint(path, map_location="cpu")
        assert model.classes == tuple(names)
    inputs = reference["inputs"]
    fused = model.eval().encoder(inputs["image"], inputs["text_ids"], inputs["text_masks"].bool())
    agrees(
        model.head(model.encoder.pool(fused)), head(pooled_by_hand(reference, "all" if origin == "umd" else "first"))
    )


@pytest.mark.parametrize("origin", ["umd", "m3ae"])
@torch.no_grad()
def test_the_retrieval_head_scores_pairs(reference: Reference, tmp_path: Path, origin: Origin) -> None:
    head = nn.Linear(96, 1)
    matching = {f"itm_head.fc.{part}": reference["student"][f"itm_head.fc.{part}"] for part in ("weight", "bias")}
    own = {f"irtr_head.{name}": value for name, value in head.state_dict().items()}
    state = {**body_of(reference), **matching, **own}
    result = convert(state, origin, TINY_HEADS)
    assert matching.keys() <= result.dropped.keys(), "the released code does not train it any more"
    assert any("recall" in note for note in result.notes) == (origin == "umd"), "its mean over padding is not ours"

    model = Retrieval.load_from_checkpoint(converted(state, tmp_path, origin), map_location="cpu").eval()
    inputs = reference["inputs"]
    fused = model.encoder(inputs["image"], inputs["text_ids"], inputs["text_masks"].bool())
    wanted = head(pooled_by_hand(reference, "real" if origin == "umd" else "first"))[:, 0]
    agrees(model.scorer(model.encoder.pool(fused)), wanted)


def test_a_real_checkpoint_has_as_many_names_as_documented() -> None:
    assert len(released_shapes(Sizes(), PRETRAIN)) == 729
    assert len(released_shapes(Sizes(), PRETRAIN - {"itm"})) == 727
    assert len(released_shapes(Sizes(), frozenset({"vqa"}), 458)) == 669
    assert len(released_shapes(Sizes(), frozenset({"itm", "irtr"}))) == 667


def test_sizes_of_a_real_checkpoint_are_read_from_its_shapes() -> None:
    result = convert(released_state(Sizes(), PRETRAIN, without_memory), "umd", Heads())
    encoder = EncoderConfig(**result.checkpoint["hyper_parameters"]["encoder"])
    assert encoder == EncoderConfig(
        image_size=288,
        vision="clip_vit_b16",
        vision_options={"blocks": 11},
        text="roberta_base",
        text_options={"layers": 12},
    )
    weights = result.checkpoint["state_dict"]
    vision = sum(v.numel() for k, v in weights.items() if k.startswith("encoder.vision."))
    assert vision / 1e6 == pytest.approx(104.1 - 25.3, abs=0.1)


@pytest.mark.parametrize("size", ["pretrain", "calibrate", "m3ae"])
def test_every_stage_loads_with_nothing_missing(tmp_path: Path, size: str) -> None:
    heads = {"pretrain": PRETRAIN, "calibrate": PRETRAIN - {"itm"}, "m3ae": PRETRAIN - {"feal"}}[size]
    kind: type[MRPretrain | TDCalib] = TDCalib if size == "calibrate" else MRPretrain
    origin: Origin = "m3ae" if size == "m3ae" else "umd"
    state = released_state(TINY, heads, draw)
    path = converted(state if size == "m3ae" else with_teacher(state), tmp_path, origin)
    module = kind.load_from_checkpoint(path, map_location="cpu")
    drawn = [] if size == "m3ae" else ["image_feature_projection"]
    assert settings_of(path)["model"]["class_path"] == f"umd.{kind.__name__}"
    assert read_checkpoint(path)["umd"]["converted"] == {"from": origin, "drawn_anew": drawn}
    assert hasattr(module, "matching_head") == (size != "calibrate")
    assert module.has_teacher == (size != "m3ae")
    if size != "m3ae":
        teacher, student = module.teacher.state_dict(), module.encoder.state_dict()
        torch.testing.assert_close(teacher["text_pooler.bias"], student["text_pooler.bias"] + 1)


def test_everything_dropped_is_named() -> None:
    state = with_teacher(released_state(TINY, PRETRAIN, draw))
    result = convert(state, "umd", TINY_HEADS)
    kept = {name for name in state if name not in result.dropped}
    assert result.converted == len(kept)
    dead = {"ln_final.weight", "ln_final.bias", "token_embedding.weight", "positional_embedding"}
    student = {f"vision_encoder.{name}" for name in dead}
    student |= {f"language_encoder.pooler.dense.{part}" for part in ("weight", "bias")}
    student |= {"language_encoder.embeddings.position_ids", "mim_head.decoder_pos_embed"}
    assert {name for name in result.dropped if not name.startswith("ema.")} == student
    heads = {name for name in state if name.startswith(("ema.module.m", "ema.module.itm", "ema.module.feal"))}
    heads = {name for name in heads if "multi_modal" not in name and "modality" not in name}
    expected = {f"ema.module.{name}" for name in student} | heads
    assert {name for name in result.dropped if name.startswith("ema.")} == expected
    assert any("image_feature_projection" in note for note in result.notes)


def test_a_later_stage_starts_from_it_at_another_image_size(tmp_path: Path) -> None:
    path = converted(released_state(TINY, PRETRAIN, draw), tmp_path)
    settings = settings_of(path)["model"]["init_args"]["encoder"]
    later = VQAClassifier(EncoderConfig(**{**settings, "image_size": 48}), answers=["yes", "no"])
    report = hand_over(path, later, later.hands_over, later.position_tables())
    assert report.missing == ()
    assert report.resized == ("encoder.vision.model.embeddings.position_embedding.weight",)


@pytest.mark.parametrize(
    ("heads", "change", "message"),
    [
        (PRETRAIN, {"vision_encoder.layers.0.blocks.0.norm1.weight": torch.ones(2)}, "not in the released layout"),
        (PRETRAIN, {"mlm_head.transform.dense.bias": torch.ones(5)}, r"text_decoder.dense.bias is \(5,\), not \(48,\)"),
        (PRETRAIN, {"mim_head.decoder_pos_embed": torch.ones(1, 17, 24)}, "not the fixed sine-cosine positions"),
        (PRETRAIN - {"mlm"}, {}, "no stage has these parts alone"),
        (frozenset({"vqa"}), {}, "answer head over 3 answers"),
        (frozenset({"cls"}), {}, "class head over 3 classes.*--classes FILE"),
        (frozenset({"vqa", "irtr"}), {}, "heads of several tasks: vqa_head, irtr_head"),
    ],
)
def test_what_cannot_be_converted_is_refused(heads: frozenset[str], change: dict[str, Tensor], message: str) -> None:
    state = {**released_state(TINY, heads, draw, answers=3), **change}
    with pytest.raises(ValueError, match=message):
        convert(state, "umd", TINY_HEADS)


def test_a_missing_tensor_is_named() -> None:
    state = released_state(TINY, PRETRAIN, draw)
    del state["multi_modal_vision_layers.1.crossattention.self.key.bias"]
    with pytest.raises(ValueError, match=r"image_layers\.1\.cross_attention\.key\.bias is missing"):
        convert(state, "umd", TINY_HEADS)


def test_answers_and_classes_must_fit_the_head() -> None:
    answering, classifying = (released_state(TINY, frozenset({task}), draw, answers=3) for task in ("vqa", "cls"))
    with pytest.raises(ValueError, match="holds 2 answers, the checkpoint's answer head has 3"):
        convert(answering, "umd", TINY_HEADS, ["yes", "no"])
    with pytest.raises(ValueError, match="holds 2 classes, the checkpoint's class head has 3"):
        convert(classifying, "umd", TINY_HEADS, classes=["ct", "mri"])
    with pytest.raises(ValueError, match="--answers was given, but the checkpoint has no answer head"):
        convert(classifying, "umd", TINY_HEADS, ["yes", "no", "two"], ["ct", "mri", "x-ray"])
    with pytest.raises(ValueError, match="--classes was given, but the checkpoint has no class head"):
        convert(released_state(TINY, PRETRAIN, draw), "umd", TINY_HEADS, classes=["ct"])


def test_heads_that_no_width_tells_are_asked_for() -> None:
    with pytest.raises(ValueError, match="give --vision_heads"):
        convert(released_state(TINY, PRETRAIN, draw), "umd", Heads())
    with pytest.raises(ValueError, match="--fusion_heads is 5"):
        convert(released_state(TINY, PRETRAIN, draw), "umd", Heads(vision_heads=4, text_heads=4, fusion_heads=5))


def test_what_old_lightning_leaves_beside_the_weights_is_read_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pytorch_lightning.callbacks.model_checkpoint"
    modules: dict[str, Any] = {part: ModuleType(part) for part in ("pytorch_lightning", "pytorch_lightning.callbacks")}
    modules[name] = ModuleType(name)
    callback = modules[name].ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    settings = callback()
    settings.save_top_k = 1
    state = {"weight": torch.ones(2)}
    with monkeypatch.context() as patch:
        for part, module in modules.items():
            patch.setitem(sys.modules, part, module)
        path = write(state, tmp_path / "old.ckpt", callbacks={callback: {"best": 1.0}}, hyper_parameters=settings)
    assert read_released(path)["weight"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="more than plain data"):
        read_checkpoint(path)


class _Trap:
    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return exec, ("raise AssertionError('code ran')",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = write({"weight": torch.ones(1)}, tmp_path / "trap.ckpt", callbacks=_Trap())
    with pytest.raises(ValueError, match=r"builtins\.exec"):
        read_released(path)
    with pytest.raises(AssertionError, match="code ran"):
        pickle.loads(pickle.dumps(_Trap()))


def test_the_command_writes_reports_and_never_overwrites(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(released_state(TINY, PRETRAIN, draw), tmp_path / "released.ckpt")
    out = tmp_path / "new" / "converted.ckpt"
    arguments = ["--from", "umd", "--checkpoint", str(source), "--out", str(out), *HEAD_OPTIONS]
    main(arguments)
    for expected in ("dropped language_encoder.pooler.dense.weight", "image_feature_projection", "depth: 2"):
        assert expected in caplog.text
    assert isinstance(MRPretrain.load_from_checkpoint(out, map_location="cpu"), MRPretrain)
    with pytest.raises(UserError, match="another --out"):
        main(arguments)


def test_the_command_reads_the_classes_from_a_file(tmp_path: Path) -> None:
    source = write(released_state(TINY, frozenset({"cls"}), draw, answers=2), tmp_path / "released.ckpt")
    arguments = ["--from", "umd", "--checkpoint", str(source), "--out", str(tmp_path / "out.ckpt"), *HEAD_OPTIONS]
    names = tmp_path / "classes.txt"
    with pytest.raises(UserError, match="no file of classes"):
        main([*arguments, "--classes", str(names)])
    names.write_text("western blot\nfluorescence microscopy\n")
    main([*arguments, "--classes", str(names)])
    model = Classification.load_from_checkpoint(tmp_path / "out.ckpt", map_location="cpu")
    assert model.classes == ("western blot", "fluorescence microscopy")
