"""The stages, trained for a few steps on random pairs: gradients, the total, the teacher, the way of the weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests.synthetic import ANSWERS, ENCODER, M3AE, OPTIMIZER, RECONSTRUCTION, Batches, quiet_trainer, vqa_batch
from umd.files import UserError
from umd.heads.image_decoder import ImageDecoder
from umd.heads.split_head import SplitHead
from umd.losses.views import Views
from umd.masking import IGNORED
from umd.modules import MRPretrain, TDCalib, VQAClassifier
from umd.modules.objectives import FeatureTarget, Preset
from umd.modules.reconstruction import ReconstructionModule
from umd.modules.umd_stage import UMDStage
from umd.optim import build_adamw, check_partition

State = dict[str, Tensor]

STAGES: dict[str, Callable[[], UMDStage]] = {
    "pretrain": partial(MRPretrain, ENCODER, OPTIMIZER, RECONSTRUCTION),
    "pretrain masked": partial(MRPretrain, ENCODER, OPTIMIZER, replace(RECONSTRUCTION, feature_target="masked")),
    "pretrain m3ae": partial(MRPretrain, ENCODER, OPTIMIZER, M3AE),
    "pretrain mae": partial(MRPretrain, ENCODER, OPTIMIZER, replace(RECONSTRUCTION, preset="mae")),
    "pretrain clip": partial(MRPretrain, ENCODER, OPTIMIZER, replace(RECONSTRUCTION, preset="clip")),
    "pretrain flip": partial(MRPretrain, ENCODER, OPTIMIZER, replace(RECONSTRUCTION, preset="flip")),
    "calibrate": partial(TDCalib, ENCODER, OPTIMIZER, RECONSTRUCTION),
    "calibrate m3ae": partial(TDCalib, ENCODER, OPTIMIZER, M3AE),
    "vqa": partial(VQAClassifier, ENCODER, OPTIMIZER, answers=list(ANSWERS)),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def weights(module: LightningModule, prefix: str = "") -> State:
    """A copy of the weights under a prefix, without it."""
    state = module.state_dict()
    return {name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)}


def assert_equal(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def data(batches: int = 2, **settings: int) -> Batches:
    return Batches([vqa_batch(seed=number, **settings) for number in range(batches)])


class AtStart(Callback):
    """The weights with which training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = weights(pl_module)


def train(
    module: LightningModule, folder: Path, *callbacks: Callback, steps: int = 1, **settings: int
) -> tuple[Path, State]:
    """Train, and return the checkpoint and the weights that training started with."""
    start = AtStart()
    trainer = quiet_trainer(folder, start, *callbacks, max_steps=steps)
    trainer.fit(module, datamodule=data(**settings))
    path = folder / f"{type(module).__name__}.ckpt"
    trainer.save_checkpoint(path)
    return path, start.weights


class ValidationTerms(Callback):
    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.values.append({name: float(value) for name, value in trainer.callback_metrics.items()})


# Gradients


class Gradients(Callback):
    """Which parameters had a gradient, and one that is not zero, at the optimizer step."""

    def __init__(self) -> None:
        self.without: list[str] = []
        self.idle: list[str] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                self.without.append(name)
            elif parameter.requires_grad and not parameter.grad.any():  # type: ignore[union-attr]
                self.idle.append(name)


@pytest.mark.parametrize("stage", STAGES)
def test_every_trainable_parameter_gets_a_gradient(stage: str, tmp_path: Path) -> None:
    """So DDP runs without find_unused_parameters, and no weight is carried along untrained."""
    module, seen = STAGES[stage](), Gradients()
    train(module, tmp_path, seen)
    assert seen.without == []
    # A key's bias shifts all of a query's scores alike: zero by symmetry, up to rounding.
    assert [name for name in seen.idle if not name.endswith(("key.bias", "k_proj.bias"))] == []


@pytest.mark.parametrize("stage", STAGES)
def test_parameter_groups_are_a_complete_partition(stage: str) -> None:
    module = STAGES[stage]()
    groups = module.parameter_groups()
    check_partition(module, groups)
    optimized = [id(p) for group in build_adamw(groups, OPTIMIZER).param_groups for p in group["params"]]
    assert len(optimized) == len(set(optimized))
    assert set(optimized) == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


def test_rates_are_those_of_the_recipe() -> None:
    rates = replace(OPTIMIZER, lr=1e-5, fusion_multiplier=5.0, head_multiplier=50.0)
    module = VQAClassifier(ENCODER, rates, answers=list(ANSWERS))
    rate = {
        id(p): group["lr"]
        for group in build_adamw(module.parameter_groups(), rates).param_groups
        for p in group["params"]
    }
    for name, parameter in module.named_parameters():
        part = name.removeprefix("encoder.").split(".")[0]
        wanted = {"vision": 1e-5, "text": 1e-5, "head": 5e-4}.get(part, 5e-5)
        assert rate[id(parameter)] == pytest.approx(wanted), name


# The total


def seen_views(kind: type[ReconstructionModule], monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, Views]]:
    """What the objectives read, each time they are asked, and whether it was in training."""
    seen: list[tuple[bool, Views]] = []
    make = kind.views

    def views(module: ReconstructionModule, *arguments: Any, **more: Any) -> Views:  # noqa: ANN401 - passed through
        seen.append((module.training, make(module, *arguments, **more)))
        return seen[-1][1]

    monkeypatch.setattr(kind, "views", views)
    return seen


@pytest.mark.parametrize("feature_target", ["visible", "masked"])
@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_total_is_equation_7(feature_target: FeatureTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """All five terms again, from the module's parts, with the masks and swaps that the module drew."""
    module = MRPretrain(ENCODER, OPTIMIZER, replace(RECONSTRUCTION, alpha=0.3, feature_target=feature_target))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    batch = vqa_batch(5)
    drawn = seen_views(MRPretrain, monkeypatch)
    loss = module.training_step(batch, 0)
    ((_, views),) = drawn
    patch_mask, masked_ids, labels = views.patch_mask, views.masked_tokens.input_ids, views.masked_tokens.labels
    source, match = views.swaps

    pixels = (batch.image.float() / 255 - 0.45) / 0.27
    attention = batch.attention_mask
    with torch.no_grad():
        student = module.encoder(pixels, masked_ids, attention, patch_mask)
        teacher = module.teacher(pixels, batch.input_ids, attention)
        unmasked = module.encoder(pixels[source], batch.input_ids, attention)
        decoder = views.head("image_decoder", ImageDecoder)
        trunk, rebuilt = decoder.trunk(student.image, patch_mask), decoder(student.image, patch_mask)
        h_image, h_text, text_decoder, matching_head = (
            module.get_submodule(name)
            for name in ("image_feature_projection", "text_feature_projection", "text_decoder", "matching_head")
        )
        mim, mlm, feature_mim, feature_mlm, itm = [], [], [], [], []
        for row in range(5):
            for place in range(16):
                y, x = divmod(place, 4)
                true = pixels[row, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].permute(1, 2, 0).flatten()
                true = (true - true.mean()) / (true.var() + 1e-6).sqrt()
                if patch_mask.masked[row, place]:
                    mim.append((rebuilt[row, place] - true).square().mean())
                    if feature_target == "masked":
                        guess = h_image(module.get_submodule("trunk_projection")(trunk[row, 1 + place]))
                        error = guess - h_image(teacher.image[row, 1 + place])
                        feature_mim.append(error.square().mean())
            seen = [0, *(1 + place for place in range(16) if not patch_mask.masked[row, place])]
            for own, place in enumerate(seen if feature_target == "visible" else []):
                error = h_image(student.image[row, own]) - h_image(teacher.image[row, place])
                feature_mim.append(error.square().mean())
            for place in range(int(attention[row].sum())):
                error = h_text(student.text[row, place]) - h_text(teacher.text[row, place])
                feature_mlm.append(error.square().mean())
                if labels[row, place] != IGNORED:
                    logits = text_decoder(student.text[row, place])
                    mlm.append(-logits.log_softmax(0)[batch.input_ids[row, place]])
            z = torch.cat(
                [
                    module.encoder.text_pooler(unmasked.text[row, 0]).tanh(),
                    module.encoder.image_pooler(unmasked.image[row, 0]).tanh(),
                ]
            )
            itm.append(-matching_head(z).log_softmax(0)[int(source[row] == row)])
    assert int((match == 0).sum()) == 2
    parts = [torch.stack(part).mean() for part in (mim, mlm, feature_mim, feature_mlm, itm)]
    wanted = 0.7 * (parts[0] + parts[1]) + 0.3 * (parts[2] + parts[3]) + parts[4]
    torch.testing.assert_close(loss.detach(), wanted)


def test_masks_differ_between_steps_and_epochs_but_not_in_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = seen_views(TDCalib, monkeypatch)
    module = TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION)
    trainer = quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=2)
    trainer.fit(module, datamodule=data())
    training = [views.patch_mask.masked for trained, views in drawn if trained]
    validation = [views.patch_mask.masked for trained, views in drawn if not trained]
    assert len(training) == len(validation) == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(training) for b in training[:i])
    assert torch.equal(validation[0], validation[2])
    assert torch.equal(validation[1], validation[3])


@pytest.mark.parametrize(
    ("preset", "trained", "named"),
    [
        ("mae", {"vision"}, {"mim"}),
        ("clip", {"vision", "text"}, {"contrastive", "negatives"}),
        ("flip", {"vision", "text"}, {"contrastive", "negatives"}),
    ],
)
def test_a_baseline_leaves_the_fusion_as_initialised(
    preset: Preset, trained: set[str], named: set[str], tmp_path: Path
) -> None:
    module = MRPretrain(ENCODER, OPTIMIZER, replace(RECONSTRUCTION, preset=preset))
    before, terms = weights(module, "encoder."), ValidationTerms()
    trainer = quiet_trainer(tmp_path, terms, max_steps=2, limit_val_batches=1)
    trainer.fit(module, datamodule=data())
    after = weights(module, "encoder.")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    parts = {name.split(".")[0] for name in moved if not name.startswith("fusion.image_projection.")}
    assert parts == trained
    assert {name.removeprefix("train/") for name in terms.values[-1] if name.startswith("train/")} == {"loss", *named}


@pytest.mark.parametrize("preset", ["m3ae", "mae", "clip", "flip"])
def test_calibration_starts_from_every_baseline(preset: Preset, tmp_path: Path) -> None:
    path, _ = train(MRPretrain(ENCODER, OPTIMIZER, replace(RECONSTRUCTION, preset=preset)), tmp_path)
    module = TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, str(path))
    _, started = train(module, tmp_path)
    pretrained = torch.load(path, weights_only=True)["state_dict"]
    common = started.keys() & pretrained.keys()
    assert_equal({name: started[name] for name in common}, {name: pretrained[name] for name in common})
    assert {name.split(".")[0] for name in common} >= {"encoder"} | (
        {"image_decoder"} if preset in ("m3ae", "mae") else set()
    )
    for name in pretrained:
        if name.startswith("encoder."):
            # Where there was no teacher, it starts from the student.
            assert torch.equal(started[name.replace("encoder.", "teacher.", 1)], pretrained[name]), name


# The teacher


class StudentAfterEachStep(Callback):
    """The student's weights after each optimizer step, and what the teacher did meanwhile."""

    def __init__(self) -> None:
        self.students: list[State] = []
        self.restless = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step > len(self.students):
            self.students.append(weights(pl_module, "encoder."))
        assert isinstance(pl_module, ReconstructionModule)
        self.restless += sum(part.training for part in pl_module.teacher.modules())
        self.restless += sum(p.requires_grad or p.grad is not None for p in pl_module.teacher.parameters())


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (2, 3), (4, 2)])
def test_the_teacher_is_the_moving_average_of_the_steps(accumulate: int, steps: int, tmp_path: Path) -> None:
    module = MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION)
    teacher = weights(module, "encoder.")
    assert_equal(weights(module, "teacher."), teacher)
    seen = StudentAfterEachStep()
    trainer = quiet_trainer(tmp_path, seen, max_epochs=1, accumulate_grad_batches=accumulate, limit_val_batches=1)
    trainer.fit(module, datamodule=data(6))
    assert len(seen.students) == steps
    for student in seen.students:
        teacher = {name: 0.7 * value + 0.3 * student[name] for name, value in teacher.items()}
    for name, value in weights(module, "teacher.").items():
        torch.testing.assert_close(value, teacher[name], rtol=1e-5, atol=1e-7)
    assert seen.restless == 0


def test_the_teacher_has_no_dropout_where_the_student_has() -> None:
    text = {**ENCODER.text_options, "dropout": 0.5}
    module = MRPretrain(replace(ENCODER, fusion_dropout=0.5, text_options=text), OPTIMIZER, RECONSTRUCTION)
    module.eval()
    module.train()
    batch = vqa_batch()
    given = (module.encoder.vision.normalize(batch.image), batch.input_ids, batch.attention_mask)
    assert torch.equal(module.teacher(*given).image, module.teacher(*given).image)
    assert not torch.equal(module.encoder(*given).image, module.encoder(*given).image)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_training_ends_like_an_uninterrupted_one(accumulate: int, tmp_path: Path) -> None:
    class SaveFirstEpoch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    settings = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    module = MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION)
    quiet_trainer(tmp_path, SaveFirstEpoch(), **settings).fit(module, datamodule=data(3))
    resumed = MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION)
    half = tmp_path / "half.ckpt"
    quiet_trainer(tmp_path, **settings).fit(resumed, datamodule=data(3), ckpt_path=str(half))
    assert_equal(weights(resumed), weights(module))
    stored = torch.load(half, weights_only=True)["state_dict"]
    assert any(not torch.equal(value, stored[f"teacher.{name}"]) for name, value in weights(module, "teacher.").items())


def test_a_resumed_training_does_not_start_over_from_the_earlier_stage(tmp_path: Path) -> None:
    first, _ = train(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), tmp_path)
    calibrated, _ = train(TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, str(first)), tmp_path, steps=2)
    start = AtStart()
    resumed = TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, str(first))
    quiet_trainer(tmp_path, start, max_steps=4).fit(resumed, datamodule=data(), ckpt_path=str(calibrated))
    assert_equal(start.weights, torch.load(calibrated, weights_only=True)["state_dict"])


def test_a_resumed_training_does_not_need_the_earlier_stage(tmp_path: Path) -> None:
    first, _ = train(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), tmp_path)
    calibrated, _ = train(TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, str(first)), tmp_path, steps=2)
    first.unlink()
    resumed = TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, str(first))
    quiet_trainer(tmp_path, max_steps=4).fit(resumed, datamodule=data(), ckpt_path=str(calibrated))


# Learning


@pytest.mark.parametrize("stage", ["pretrain", "calibrate m3ae"])
def test_the_loss_falls_on_a_few_pairs(stage: str, tmp_path: Path) -> None:
    terms, module = ValidationTerms(), STAGES[stage]()
    module.optimizer_config = replace(OPTIMIZER, lr=1e-2)
    trainer = quiet_trainer(tmp_path, terms, max_steps=100, limit_val_batches=2, check_val_every_n_epoch=25)
    trainer.validate(module, datamodule=data(), verbose=False)
    trainer.fit(module, datamodule=data())
    before, after = terms.values[0], terms.values[-1]
    assert after["validation/loss"] < 0.75 * before["validation/loss"]
    # Pixels of noise cannot be guessed from other noise: their mean is all that there is to learn.
    assert after["validation/mim"] < before["validation/mim"]
    assert after["validation/mlm"] < 0.75 * before["validation/mlm"]


def test_a_few_questions_are_learned_by_heart(tmp_path: Path) -> None:
    module = VQAClassifier(ENCODER, replace(OPTIMIZER, lr=3e-3), answers=list(ANSWERS))
    trainer = quiet_trainer(tmp_path, max_steps=80)
    trainer.fit(module, datamodule=data(1))
    batch = vqa_batch()
    rows = module.eval().predict_step(batch, 0)
    assert tuple(row["answer"] for row in rows) == batch.answers == tuple(row["ground_truth"] for row in rows)
    tested = quiet_trainer(tmp_path).test(module, datamodule=data(1), verbose=False)[0]
    assert tested == {"test/open": 100.0, "test/closed": 100.0, "test/overall": 100.0}
    assert [row["questions"] for row in module.test_report()["rows"]] == [2, 2, 4]


# From stage to stage


def test_weights_go_from_stage_to_stage(tmp_path: Path) -> None:
    path, _ = train(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), tmp_path)
    pretrained = torch.load(path, weights_only=True)["state_dict"]
    calibration = TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, str(path))
    path, started = train(calibration, tmp_path)
    assert_equal(started, pretrained)
    calibrated = torch.load(path, weights_only=True)["state_dict"]
    moved = {name.split(".")[0] for name, value in calibrated.items() if not torch.equal(value, pretrained[name])}
    assert moved == {
        *("encoder", "teacher", "image_decoder", "text_decoder"),
        *("image_feature_projection", "text_feature_projection"),
    }
    # What the calibration does not train waits for the stages behind.
    for name, value in pretrained.items():
        if name.startswith(("matching_head.", "encoder.text_pooler.", "encoder.image_pooler.")):
            assert torch.equal(calibrated[name], value), name
    answering = VQAClassifier(ENCODER, OPTIMIZER, str(path), list(ANSWERS))
    _, started = train(answering, tmp_path)
    encoder = {name: value for name, value in calibrated.items() if name.startswith("encoder.")}
    assert_equal({name: value for name, value in started.items() if not name.startswith("head.")}, encoder)


def test_the_image_size_may_change_between_stages(tmp_path: Path) -> None:
    path, _ = train(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), tmp_path)
    larger = replace(ENCODER, image_size=48)
    path, started = train(TDCalib(larger, OPTIMIZER, RECONSTRUCTION, str(path)), tmp_path, image_size=48)
    for tower in ("encoder", "teacher"):
        assert started[f"{tower}.vision.model.embeddings.position_embedding.weight"].shape == (37, 16)
    _, started = train(VQAClassifier(ENCODER, OPTIMIZER, str(path), list(ANSWERS)), tmp_path)
    assert started["encoder.vision.model.embeddings.position_embedding.weight"].shape == (17, 16)


def test_another_architecture_stops_a_training_at_its_start(tmp_path: Path) -> None:
    path, _ = train(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), tmp_path)
    module = VQAClassifier(replace(ENCODER, fusion_layers=2), OPTIMIZER, str(path), list(ANSWERS))
    for start in (module.check_start, lambda: train(module, tmp_path)):
        with pytest.raises(
            UserError, match=r"MRPretrain\.ckpt.*another architecture.*: fusion_layers: 1 there, 2 here\. Set"
        ):
            start()


def test_a_start_from_other_encoders_names_them_and_no_shape_that_follows(tmp_path: Path) -> None:
    path, _ = train(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), tmp_path)
    other = replace(ENCODER, image_size=64, vision="efficientnet_lite0", vision_options={})
    with pytest.raises(UserError) as refused:
        TDCalib(other, OPTIMIZER, RECONSTRUCTION, str(path)).check_start()
    said = f"settings: vision: {ENCODER.vision} there, efficientnet_lite0 here. Set --model.encoder as it is there"
    assert said in str(refused.value)
    # What the checkpoint does not tell of, or what no setting explains, is told by its shapes.
    content = torch.load(path, weights_only=True)
    word = next(name for name in content["state_dict"] if name.startswith("encoder.text.") and "word" in name)
    content["state_dict"][word] = content["state_dict"][word][:-1]
    torch.save(content, path)
    with pytest.raises(UserError, match=rf"vision: .* here; {word}: \(39, .*\) there, \(40, .*\) here\. Set"):
        TDCalib(other, OPTIMIZER, RECONSTRUCTION, str(path)).check_start()
    del content["hyper_parameters"]
    torch.save(content, path)
    with pytest.raises(UserError, match=r"settings: encoder\.text\..*; encoder\.vision\..*; and \d+ more$"):
        TDCalib(other, OPTIMIZER, RECONSTRUCTION, str(path)).check_start()


def test_a_checkpoint_that_is_nowhere_stops_a_training_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION, str(tmp_path / "nowhere.ckpt")), tmp_path)


def test_a_foreign_tokenizer_stops_a_training_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"41 tokens.*embeds 40"):
        quiet_trainer(tmp_path, max_steps=1).fit(
            TDCalib(ENCODER, OPTIMIZER, RECONSTRUCTION), datamodule=Batches([vqa_batch()], tokenizer_size=41)
        )


# A checkpoint on its own


def outputs(module: LightningModule) -> Tensor:
    """What a module puts out for the first batch, in evaluation."""
    module.eval()
    batch = vqa_batch(image_size=64)
    with torch.no_grad():
        if isinstance(module, VQAClassifier):
            return torch.as_tensor(module(batch))
        assert isinstance(module, ReconstructionModule)
        terms = module.terms(batch, 1, 0)
        pictures = module.reconstruct(batch)
        assert pictures is not None
        return torch.stack([*terms.values(), *(part.mean() for part in pictures)])


@pytest.mark.parametrize("stage", ["pretrain", "calibrate", "vqa"])
def test_a_checkpoint_needs_no_other_file(stage: str, tmp_path: Path) -> None:
    """Not the weights of the encoders, nor the earlier stage's checkpoint, nor a config."""
    folder = tmp_path / "clip"
    CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=1,
            num_attention_heads=12,
            image_size=64,
            patch_size=32,
        )
    ).save_pretrained(folder)
    encoder = replace(
        ENCODER, image_size=64, vision="clip_vit_b32", vision_weights=str(folder), vision_options={"blocks": 1}
    )
    module: UMDStage
    if stage == "pretrain":
        module = MRPretrain(encoder, OPTIMIZER, M3AE)
    elif stage == "calibrate":
        module = TDCalib(encoder, OPTIMIZER, RECONSTRUCTION)
    else:
        module = VQAClassifier(encoder, OPTIMIZER, inputs="text")
    earlier = tmp_path / "earlier.ckpt"
    torch.save({"state_dict": TDCalib(encoder, OPTIMIZER, M3AE).state_dict()}, earlier)
    module.init_from = module.hparams["init_from"] = str(earlier)
    path, _ = train(module, tmp_path, image_size=64)
    wanted = outputs(module)
    shutil.rmtree(folder)
    earlier.unlink()
    torch.manual_seed(1)
    torch.load(path, weights_only=True)
    again = type(module).load_from_checkpoint(path, map_location="cpu")
    torch.testing.assert_close(outputs(again), wanted)
    assert again.optimizer_config == replace(OPTIMIZER, betas=again.optimizer_config.betas)
    if isinstance(again, VQAClassifier):
        assert (again.answers, again.inputs) == (ANSWERS, "text")


def test_a_checkpoint_says_how_it_was_made(tmp_path: Path) -> None:
    first, _ = train(MRPretrain(ENCODER, OPTIMIZER, RECONSTRUCTION), tmp_path)
    path, _ = train(VQAClassifier(ENCODER, OPTIMIZER, str(first)), tmp_path)
    recipe = torch.load(path, weights_only=True)["umd"]
    assert recipe["model"]["class_path"] == "umd.VQAClassifier"
    assert recipe["model"]["init_args"]["answers"] == list(ANSWERS)
    assert recipe["model"]["init_args"]["init_from"] is None
    assert recipe["model"]["init_args"]["encoder"]["vision_options"] == ENCODER.vision_options
    assert recipe["started_from"]["init_from"] == str(first)
    assert recipe["data"]["class_path"] == "tests.synthetic.Batches"


# Question answering


def test_one_modality_controls_never_see_the_other() -> None:
    batch, other = vqa_batch(seed=1), vqa_batch(seed=2)
    for inputs, same in (
        ("text", {"image": other.image}),
        ("image", {"input_ids": other.input_ids, "attention_mask": other.attention_mask}),
    ):
        module = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS), inputs=inputs).eval()  # type: ignore[arg-type]
        changed = replace(batch, **same)  # type: ignore[arg-type]
        torch.testing.assert_close(module(changed), module(batch))
        seen = {"text": {"input_ids": other.input_ids}, "image": {"image": other.image}}[inputs]
        assert not torch.allclose(module(replace(batch, **seen)), module(batch), atol=1e-6)  # type: ignore[arg-type]


def test_contributions_are_summed_over_the_micro_batches_of_a_step(tmp_path: Path) -> None:
    class AtStep(Callback):
        seen: list[dict[str, Tensor]]

        def __init__(self) -> None:
            self.seen = []

        def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
            assert isinstance(pl_module, VQAClassifier)
            found = pl_module.modality_contributions()
            wanted = {"language": torch.zeros(()), "vision": torch.zeros(())}
            for number in (2 * len(self.seen), 2 * len(self.seen) + 1):
                batch = vqa_batch(seed=number)
                pooled = pl_module.pool(batch)
                for name, values in pl_module.head.contributions(pooled, pl_module.labels(batch)).items():
                    wanted[name] = wanted[name] + values.sum()
            for name, value in wanted.items():
                torch.testing.assert_close(found[name], value)
            self.seen.append(dict(found))

    module, seen = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS)), AtStep()
    quiet_trainer(tmp_path, seen, max_epochs=1, accumulate_grad_batches=2).fit(module, datamodule=data(4))
    assert len(seen.seen) == 2
    assert module.modality_contributions() == {}


def test_under_autocast_contributions_change_no_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gradients(Callback):
        found: dict[str, Tensor]

        def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
            self.found = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}

    def gradients() -> dict[str, Tensor]:
        torch.manual_seed(0)
        module, seen = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS)), Gradients()
        quiet_trainer(tmp_path, seen, max_steps=1, precision="bf16-mixed").fit(module, datamodule=data(1))
        return seen.found

    with_them = gradients()
    monkeypatch.setattr(SplitHead, "contributions", lambda *_: {})
    without = gradients()
    assert with_them.keys() == without.keys()
    assert {"head.hidden.0.weight", "head.last.weight"} <= without.keys()
    assert all(torch.equal(gradient, with_them[name]) for name, gradient in without.items())


def test_a_training_by_the_released_codes_contributions_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    released = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS), contribution="last_layer")
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(released, datamodule=data(1))
    assert "contribution is 'last_layer', as in the released code" in caplog.text
    path = str(tmp_path / "released.ckpt")
    trainer.save_checkpoint(path)
    assert VQAClassifier.load_from_checkpoint(path, weights_only=True).contribution == "last_layer"
    caplog.clear()
    with caplog.at_level("INFO"):
        anew = VQAClassifier(ENCODER, OPTIMIZER, answers=list(ANSWERS), init_from=path)
        quiet_trainer(tmp_path, max_steps=1).fit(anew, datamodule=data(1))
    assert "was trained with contribution 'last_layer'; this training goes by 'masked_head'" in caplog.text
    assert "as in the released code" not in caplog.text


def test_an_answer_outside_the_vocabulary_counts_as_wrong(tmp_path: Path) -> None:
    module = VQAClassifier(ENCODER, OPTIMIZER, answers=["yes", "left lung"])
    assert module.labels(vqa_batch()).tolist() == [0, -1, 1, -1]
    quiet_trainer(tmp_path).test(module, datamodule=data(1), verbose=False)
    rows = {row["group"]: row for row in module.test_report()["rows"]}
    assert rows["overall"]["ceiling"] == 50.0
    assert rows["overall"]["accuracy"] <= 50.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contribution": "half"}, "contribution is 'half'; allowed: masked_head"),
        ({"inputs": "none"}, "inputs is 'none'; allowed: both"),
        ({"answers": []}, "empty"),
        ({"answers": ["yes", "yes"]}, "twice"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VQAClassifier(ENCODER, OPTIMIZER, **settings)
