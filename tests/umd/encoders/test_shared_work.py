"""What is computed once, or not at all, gives the numbers of the plain way: outputs, and gradients of every weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.synthetic import ENCODER, OPTIMIZER, RECONSTRUCTION, vqa_batch
from umd.batch import VQABatch
from umd.encoders import EncoderConfig, MultimodalEncoder, Pooled
from umd.encoders.fusion import first_token
from umd.encoders.ggp import GGPConfig, GGPEncoder
from umd.encoders.multimodal import EncoderPart
from umd.files import UserError
from umd.modules import MRPretrain, TDCalib, VQAClassifier
from umd.modules.objectives import FeatureTarget
from umd.modules.reconstruction import ReconstructionModule

INDEX = torch.tensor([0, 1, 0, 0, 1])
CONVOLUTIONS = replace(ENCODER, image_size=64, vision="resnet50", vision_options={}, fusion_layers=2)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def shaken(module: nn.Module) -> None:
    """Weights far from their small first values, so that every path matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def agree(module: nn.Module, one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(one)
    found, wanted = gradients(module, (one * weights).sum()), gradients(module, (other * weights).sum())
    assert found.keys() == wanted.keys()
    scale = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * max(1.0, scale), msg=name)


def shared_and_plain(image_size: int = 32) -> tuple[VQABatch, VQABatch]:
    """Five questions of two images, told once and as many times as there are questions."""
    batch = vqa_batch(5, image_size=image_size)
    shared = replace(batch, image=batch.image[:2], image_index=INDEX)
    return shared, replace(batch, image=batch.image[INDEX])


def plainly(encoder: MultimodalEncoder, batch: VQABatch) -> Pooled:
    pixels = encoder.vision.normalize(batch.image)
    return encoder.pool(encoder(pixels, batch.input_ids, batch.attention_mask))


@pytest.mark.parametrize(
    "config",
    [
        *(replace(ENCODER, fusion_layers=2, pooling=pooling) for pooling in ("first", "mean", "mean_padded")),
        replace(ENCODER, text=None, text_options={}),
        replace(ENCODER, vision=None, vision_options={}),
        replace(ENCODER, fusion_layers=2, freeze_vision=True),
        CONVOLUTIONS,
    ],
    ids=["first", "mean", "mean_padded", "image alone", "text alone", "frozen", "batch statistics"],
)
def test_pooled_features_are_those_of_all_tokens_of_all_images(config: EncoderConfig) -> None:
    encoder = MultimodalEncoder(config)
    shaken(encoder.fusion)
    shared, plain = shared_and_plain(config.image_size)
    given = encoder.vision.normalize(shared.image), shared.input_ids, shared.attention_mask, shared.image_index
    agree(encoder, encoder.pooled(*given).joint, plainly(encoder, plain).joint)


def test_joint_states_that_are_picked_are_those_of_all() -> None:
    options: dict[str, Any] = {"width": 16, "heads": 2, "vocab_size": 40}
    encoder = GGPEncoder(
        GGPConfig(
            image_size=32,
            vision="tiny_vit",
            vision_options=ENCODER.vision_options,
            text="tiny_bert",
            text_options=options,
            text_layers=1,
            fusion_layers=2,
        )
    )
    shaken(encoder)
    batch = vqa_batch(3)
    image = encoder.vision(encoder.vision.normalize(batch.image))
    given = encoder.text(batch.input_ids, batch.attention_mask), batch.attention_mask, image
    assert encoder.fuse(*given, first_token).shape == (3, 1, 16)
    # One graph below both: each backward goes through it.
    first, every = encoder.fuse(*given, first_token)[:, 0], encoder.fuse(*given)[:, 0]
    torch.testing.assert_close(first, every, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad(one.square().sum(), given[::2], retain_graph=True) for one in (first, every)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_a_vqa_step_on_shared_images_is_that_on_repeated_ones() -> None:
    module = VQAClassifier(replace(ENCODER, fusion_layers=2), OPTIMIZER, answers=["yes", "no", "left lung", "two"])
    shaken(module)
    results = []
    for batch in shared_and_plain():
        labels, pooled = module.labels(batch), module.pool(batch)
        results.append((module.head(pooled), module.head.contributions(pooled, labels)))
    agree(module, results[0][0], results[1][0])
    for name, contribution in results[0][1].items():
        torch.testing.assert_close(contribution, results[1][1][name])


@pytest.mark.parametrize("kind", [MRPretrain, TDCalib])
def test_terms_on_shared_images_are_those_on_repeated_ones(kind: type[ReconstructionModule]) -> None:
    module = kind(replace(ENCODER, fusion_layers=2), OPTIMIZER, RECONSTRUCTION, None)
    shaken(module)
    shared, plain = (module.terms(batch, 0) for batch in shared_and_plain())
    assert shared.keys() == plain.keys()
    agree(module, torch.stack([*shared.values()]), torch.stack([*plain.values()]))


@pytest.mark.parametrize("config", [replace(ENCODER, fusion_layers=2), CONVOLUTIONS], ids=["patches", "statistics"])
def test_matching_swaps_images_whatever_it_encodes_once(config: EncoderConfig) -> None:
    module = MRPretrain(config, OPTIMIZER, RECONSTRUCTION)
    shaken(module.encoder.fusion)
    batch = vqa_batch(8, image_size=config.image_size)
    views = module.views(batch, 0)
    source, _ = views.swaps
    assert len(set(source.tolist())) < 8
    agree(
        module.encoder,
        views.swapped_pair.joint,
        plainly(module.encoder, replace(batch, image=batch.image[source])).joint,
    )


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("feature_target", ["visible", "masked"])
@pytest.mark.parametrize("kind", [MRPretrain, TDCalib])
def test_a_teacher_that_computes_what_is_compared_teaches_the_same(
    kind: type[ReconstructionModule], feature_target: FeatureTarget, freeze: bool
) -> None:
    """Against all of the teacher's tokens, and images that it encodes beside the student."""
    config = replace(RECONSTRUCTION, feature_target=feature_target)
    module = kind(replace(ENCODER, fusion_layers=2, freeze_vision=freeze), OPTIMIZER, config, None)
    shaken(module.encoder.fusion)
    shaken(module.teacher.fusion)
    shared, plain = shared_and_plain()
    views = module.views(plain, 0)
    with torch.no_grad():
        wanted = module.teacher(views.pixels, plain.input_ids, plain.attention_mask)
    if feature_target == "visible":
        wanted = replace(wanted, image=views.patch_mask.drop(wanted.image))
    views.__dict__["teacher_features"] = wanted
    taught = [objective(views) for objective in module.objectives.values()]
    module.compare_visions()
    module.encoder.remember(2)  # anew
    encoded: list[int] = []
    for encoder in (module.encoder, module.teacher):
        encoder.vision.register_forward_hook(lambda _, given, __: encoded.append(len(given[0])))
    found = module.terms(shared, 0)
    # The masked images, and then the two whole ones: for the teacher and for matching, or, frozen, once for both.
    assert encoded == ([5, 1, 1] if freeze else [5, 2, 2][: 2 + (kind is MRPretrain)])
    agree(module, torch.stack([*found.values()]), torch.stack(taught))


def test_a_teacher_whose_frozen_vision_is_another_encodes_for_itself() -> None:
    """As after an earlier stage that trained it; the teacher goes on moving, so its features are not remembered."""
    module = TDCalib(replace(ENCODER, freeze_vision=True), OPTIMIZER, RECONSTRUCTION, None)
    shaken(module.teacher.vision)
    module.compare_visions()
    for _ in range(2):
        views = module.views(vqa_batch(3), 0)
        with torch.no_grad():
            tokens = module.teacher.vision(views.pixels)
            text = module.teacher.text(views.batch.input_ids, views.batch.attention_mask)
            wanted = module.teacher.fuse(text, views.batch.attention_mask, tokens, views.patch_mask.drop)
        torch.testing.assert_close(views.teacher_features.image, wanted.image, rtol=1e-5, atol=1e-5)
        module.after_optimizer_step(updated=True)


@pytest.mark.parametrize("parts", [["vision"], ["text", "fusion"], ["vision", "text", "fusion"]])
def test_activations_that_are_not_kept_give_the_same_gradients(parts: list[EncoderPart]) -> None:
    """With dropout: what is computed a second time draws the same."""
    config = replace(ENCODER, fusion_layers=2, fusion_dropout=0.2)
    encoders = [MultimodalEncoder(replace(config, checkpoint_activations=part)) for part in ([], parts)]
    shaken(encoders[0])
    encoders[1].load_state_dict(encoders[0].state_dict())
    batch, found, kept = vqa_batch(4), [], []
    for encoder in encoders:
        bytes_kept: list[int] = []

        def note(tensor: Tensor, into: list[int] = bytes_kept) -> Tensor:
            into.append(tensor.numel())
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = plainly(encoder, batch).joint.square().sum()
        kept.append(sum(bytes_kept))
        found.append(gradients(encoder, loss))
    assert found[0].keys() == found[1].keys()
    torch.testing.assert_close(found[1], found[0])
    assert kept[1] < 0.9 * kept[0]


def test_statistics_of_batches_are_not_counted_twice() -> None:
    with pytest.raises(UserError, match="checkpoint_activations has 'vision', but 'resnet50' normalises over batches"):
        MultimodalEncoder(replace(CONVOLUTIONS, checkpoint_activations=["vision"]))
    MultimodalEncoder(replace(CONVOLUTIONS, checkpoint_activations=["vision"], freeze_vision=True))
    with pytest.raises(UserError, match="checkpoint_activations has 'image'; allowed: vision, text, fusion"):
        replace(ENCODER, checkpoint_activations=["image"])  # type: ignore[list-item]
