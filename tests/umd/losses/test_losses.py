"""The objectives against slow loops written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.synthetic import ENCODER, vqa_batch
from umd.encoders import MultimodalEncoder
from umd.encoders.fusion import Fusion
from umd.files import UserError
from umd.heads.text_decoder import TextDecoder
from umd.losses.alignment import alignment_loss
from umd.losses.answering import answer_cross_entropy, answer_loss
from umd.losses.contrastive import equal_pairs
from umd.losses.feature_reconstruction import feature_loss
from umd.losses.masked_image import masked_image_loss, patch_statistics, patchify, unpatchify
from umd.losses.masked_language import masked_language_loss
from umd.losses.matching import matching_loss
from umd.masking import IGNORED, mask_patches


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_patchify_cuts_row_by_row_and_comes_back() -> None:
    pixels = torch.randn(2, 3, 12, 12)
    patches = patchify(pixels, 4)
    assert patches.shape == (2, 9, 48)
    for place in range(9):
        row, column = divmod(place, 3)
        cut = pixels[1, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        slow = [cut[channel, y, x] for y in range(4) for x in range(4) for channel in range(3)]
        assert torch.equal(patches[1, place], torch.stack(slow))
    assert torch.equal(unpatchify(patches, 4), pixels)


@pytest.mark.parametrize("normalize", [True, False])
def test_mim_is_the_mean_error_of_hidden_patches(normalize: bool) -> None:
    predicted, patches = torch.randn(2, 6, 12), 3 * torch.randn(2, 6, 12) + 1
    masked = torch.rand(2, 6) < 0.5
    errors = []
    for image in range(2):
        for place in range(6):
            if not masked[image, place]:
                continue
            true = patches[image, place].tolist()
            if normalize:
                mean = sum(true) / 12
                variance = sum((value - mean) ** 2 for value in true) / 11
                true = [(value - mean) / math.sqrt(variance + 1e-6) for value in true]
            errors += [(a - b) ** 2 for a, b in zip(predicted[image, place].tolist(), true, strict=True)]
    loss = masked_image_loss(predicted, patches, masked, normalize)
    assert loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_mim_ignores_what_stayed_visible() -> None:
    predicted, patches = torch.randn(2, 6, 12, requires_grad=True), torch.randn(2, 6, 12)
    masked = torch.tensor([[True, False] * 3, [False, False, True] * 2])
    loss = masked_image_loss(predicted, patches, masked)
    disturbed = predicted + 100 * (~masked)[:, :, None]
    assert masked_image_loss(disturbed, patches, masked).item() == pytest.approx(loss.item(), rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None
    assert torch.equal(predicted.grad.abs().sum(-1) > 0, masked)


def test_a_flat_patch_gives_a_finite_loss() -> None:
    loss = masked_image_loss(torch.zeros(1, 2, 12), torch.full((1, 2, 12), 0.7), torch.ones(1, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_standardising_can_be_undone() -> None:
    patches = torch.randn(2, 5, 12) * 4 + 2
    mean, deviation = patch_statistics(patches)
    perfect = (patches - mean) / deviation
    assert masked_image_loss(perfect, patches, torch.ones(2, 5, dtype=torch.bool)).item() < 1e-10
    torch.testing.assert_close(perfect * deviation + mean, patches)


def test_mlm_is_the_mean_surprise_of_hidden_tokens() -> None:
    decoder = TextDecoder(8, 11)
    text, truth = torch.randn(3, 5, 8), torch.randint(0, 11, (3, 5))
    labels = truth.masked_fill(torch.rand(3, 5) < 0.5, IGNORED)
    surprise = []
    for row in range(3):
        for place in range(5):
            if labels[row, place] != IGNORED:
                logits = decoder(text[row, place])
                surprise.append(-(logits[truth[row, place]] - logits.exp().sum().log()).item())
    loss = masked_language_loss(decoder, text, labels)
    assert loss.item() == pytest.approx(sum(surprise) / len(surprise), rel=1e-5)


def test_mlm_without_hidden_tokens_is_zero_and_still_trains() -> None:
    decoder = TextDecoder(8, 11)
    text = torch.randn(2, 4, 8, requires_grad=True)
    loss = masked_language_loss(decoder, text, torch.full((2, 4), IGNORED))
    assert loss.item() == 0
    loss.backward()  # type: ignore[no-untyped-call]
    # A gradient of zero, not none: DDP waits for every parameter.
    for tensor in (text, *decoder.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_feature_loss_is_the_mean_error_of_projected_real_tokens() -> None:
    projection = nn.Linear(4, 3)
    student, teacher = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    errors = [
        (projection(student[row, place]) - projection(teacher[row, place])).square().mean().item()
        for row in range(2)
        for place in range(5)
        if valid[row, place]
    ]
    assert feature_loss(projection, student, teacher, valid).item() == pytest.approx(sum(errors) / 7, rel=1e-5)
    junk = student.masked_fill(~valid[:, :, None], 1e3)
    torch.testing.assert_close(
        feature_loss(projection, junk, teacher, valid), feature_loss(projection, student, teacher, valid)
    )
    torch.testing.assert_close(
        feature_loss(projection, student, teacher, None),
        (projection(student) - projection(teacher)).square().mean(),
    )


def test_feature_loss_stops_at_the_target() -> None:
    projection = nn.Linear(4, 3, bias=False)
    student, teacher = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    feature_loss(projection, student, teacher, None).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None
    # d/dW of mean (W s - c)^2 with c held fixed; without the stop the teacher's outer products would come in too.
    weight = projection.weight.detach()
    difference = (student.detach() - teacher.detach()) @ weight.T
    wanted = 2 / (2 * 5 * 3) * torch.einsum("bno,bni->oi", difference, student.detach())
    torch.testing.assert_close(projection.weight.grad, wanted)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_feature_losses_reach_both_encoders_and_the_fusion(modality: str) -> None:
    """In the released code the image feature loss reached no encoder at all."""
    encoder = MultimodalEncoder(ENCODER)
    batch = vqa_batch()
    pixels = encoder.vision.normalize(batch.image)
    mask = mask_patches(len(batch), encoder.vision.patches, 0.75, torch.Generator().manual_seed(0))
    with torch.no_grad():
        teacher = encoder(pixels, batch.input_ids, batch.attention_mask)
    student = encoder(pixels, batch.input_ids, batch.attention_mask, mask)
    projection = nn.Linear(encoder.width, encoder.width)
    if modality == "image":
        loss = feature_loss(projection, student.image, mask.drop(teacher.image), None)
    else:
        loss = feature_loss(projection, student.text, teacher.text, batch.attention_mask)
    loss.backward()  # type: ignore[no-untyped-call]
    assert isinstance(encoder.fusion, Fusion)
    stack = encoder.fusion.image_layers if modality == "image" else encoder.fusion.text_layers
    for part in (encoder.vision, encoder.text, encoder.fusion.text_projection, encoder.fusion.image_projection, stack):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            # A key's bias shifts all of a query's scores alike: its gradient is zero by symmetry.
            if "k_proj.bias" not in name and "key.bias" not in name:
                assert parameter.grad.any(), name


def test_answer_loss_is_torch_bce_times_the_answers() -> None:
    logits, labels = torch.randn(3, 7), torch.tensor([6, -1, 0])
    target = torch.zeros(3, 7)
    target[0, 6] = target[2, 0] = 1  # an unknown answer makes every answer wrong
    wanted: Tensor = functional.binary_cross_entropy_with_logits(logits, target) * 7
    torch.testing.assert_close(answer_loss(logits, labels), wanted)


def test_answer_cross_entropy_by_hand() -> None:
    logits, labels, smoothing = torch.randn(3, 7), torch.tensor([6, -1, 0]), 0.2
    target = torch.full((2, 7), smoothing / 7)
    target[0, 6] += 1 - smoothing
    target[1, 0] += 1 - smoothing
    known = logits[[0, 2]]  # an unknown answer counts for nothing
    wanted = -(target * (known - known.exp().sum(1, keepdim=True).log())).sum(1).mean()
    torch.testing.assert_close(answer_cross_entropy(logits, labels, smoothing), wanted)
    logits.requires_grad_()
    nothing = answer_cross_entropy(logits, torch.tensor([-1, -1, -1]))
    nothing.backward()  # type: ignore[no-untyped-call]
    assert nothing == 0 and logits.grad is not None and not logits.grad.any()


def test_matching_loss_takes_one_for_a_match() -> None:
    logits = torch.tensor([[0.3, 2.0], [1.0, -0.5]])
    wanted = (math.log(1 + math.exp(0.3 - 2.0)) + math.log(1 + math.exp(-0.5 - 1.0))) / 2
    assert matching_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(wanted, rel=1e-6)


def test_alignment_loss_by_hand() -> None:
    image, text, log_scale = torch.randn(3, 5), torch.randn(3, 5), torch.tensor(1.2)
    cosine = [[(a @ b / (a.square().sum() * b.square().sum()).sqrt()).item() for b in text] for a in image]
    scale, surprise = math.exp(1.2), []
    for own in range(3):
        for row in (cosine[own], [cosine[other][own] for other in range(3)]):
            surprise.append(math.log(sum(math.exp(scale * value) for value in row)) - scale * row[own])
    alone = torch.eye(3, dtype=torch.bool)
    loss = alignment_loss(image, text, image, text, alone, log_scale)
    assert loss.item() == pytest.approx(sum(surprise) / 6, rel=1e-5)
    longer = alignment_loss(7 * image, text / 9, 7 * image, text / 9, alone, log_scale)
    torch.testing.assert_close(longer, loss)


def test_alignment_takes_equal_pairs_for_right_ones() -> None:
    """The first two pairs show one image, the last two share a caption: as many right answers, of equal weight."""
    image, text, log_scale = torch.randn(4, 5), torch.randn(4, 5), torch.tensor(0.5)
    shown, said = torch.tensor([7, 7, 8, 9]), torch.tensor([1, 2, 3, 3])
    equal = equal_pairs(shown, said, shown, said)
    unit_images, unit_texts = (vectors / vectors.norm(dim=1, keepdim=True) for vectors in (image, text))
    similar = math.exp(0.5) * unit_images @ unit_texts.T
    surprise = []
    for own, partner in ((0, 1), (1, 0), (2, 3), (3, 2)):
        for row in (similar[own], similar[:, own]):
            surprise.append(row.exp().sum().log() - (row[own] + row[partner]) / 2)
    loss = alignment_loss(image, text, image, text, equal, log_scale)
    torch.testing.assert_close(loss, torch.stack(surprise).mean())


def test_one_pair_is_no_contrast() -> None:
    """Its loss would be 0, and a training on it would learn nothing without a word."""
    pair, equal = torch.randn(1, 5, requires_grad=True), torch.tensor([[True]])
    with pytest.raises(UserError, match="at least two pairs"):
        alignment_loss(pair, pair, pair, pair, equal, torch.tensor(0.5))
    with torch.no_grad():  # the last pair of a validation split
        assert alignment_loss(pair, pair, pair, pair, equal, torch.tensor(0.5)) == 0


def test_alignment_over_ranks_is_that_of_the_whole_batch() -> None:
    image, text, log_scale = torch.randn(6, 5), torch.randn(6, 5), torch.tensor(0.5)
    names = torch.tensor([1, 2, 3, 1, 4, 5])
    equal = equal_pairs(names, names, names, names)
    whole = alignment_loss(image, text, image, text, equal, log_scale)
    ranks = [
        alignment_loss(image[rows], text[rows], image, text, equal[rows], log_scale)
        for rows in (slice(0, 2), slice(2, 4), slice(4, 6))
    ]
    torch.testing.assert_close(torch.stack(ranks).mean(), whole)
