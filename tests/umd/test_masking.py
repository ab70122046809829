"""Masks over patches and tokens, and the pairs of image-text matching."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from umd.masking import IGNORED, MaskedTokens, mask_patches, mask_tokens, swap_images

MASK, VOCABULARY = 3, 1000


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"),
    [(324, 0.75, 81), (16, 0.5, 8), (100, 0.9, 10), (100, 0.8, 20), (49, 0.75, 12), (16, 0.0, 16), (4, 0.9, 1)],
)
def test_each_image_keeps_exactly_its_share(patches: int, ratio: float, kept: int) -> None:
    mask = mask_patches(8, patches, ratio, seeded(0))
    assert mask.keep.shape == (8, kept)
    for row in range(8):
        visible = [place for place in range(patches) if not mask.masked[row, place]]
        assert mask.keep[row].tolist() == visible


def test_every_patch_is_hidden_equally_often() -> None:
    hidden = mask_patches(4000, 16, 0.75, seeded(1)).masked.float().mean(0)
    # Four standard errors of a share of 0.75 among 4000.
    assert (hidden - 0.75).abs().max() < 4 * (0.75 * 0.25 / 4000) ** 0.5


def test_a_patch_mask_depends_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = mask_patches(3, 64, 0.75, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(first.masked, mask_patches(3, 64, 0.75, seeded(5)).masked)
    assert not torch.equal(first.masked, mask_patches(3, 64, 0.75, seeded(6)).masked)
    assert not torch.equal(first.masked[0], first.masked[1])


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="image_mask_ratio"):
        mask_patches(1, 4, ratio, seeded(0))


def test_drop_keeps_the_summary_and_the_visible_patches() -> None:
    mask = mask_patches(3, 9, 0.5, seeded(2))
    tokens = torch.randn(3, 10, 2)
    dropped = mask.drop(tokens)
    for row in range(3):
        wanted = [tokens[row, 0]] + [tokens[row, 1 + place] for place in range(9) if not mask.masked[row, place]]
        assert torch.equal(dropped[row], torch.stack(wanted))


def texts(rows: int, real: list[int], length: int) -> tuple[Tensor, Tensor]:
    """Random ids framed by special tokens; row r has `real[r % len(real)]` of its own, then padding."""
    ids = torch.randint(10, VOCABULARY, (rows, length), generator=seeded(99))
    special = torch.ones(rows, length, dtype=torch.bool)
    for row in range(rows):
        special[row, 1 : 1 + real[row % len(real)]] = False
    return ids, special


def hide(
    ids: Tensor,
    special: Tensor,
    *,
    ratio: float = 0.15,
    seed: int = 0,
    words: Tensor | None = None,
    always_mask: bool = False,
) -> MaskedTokens:
    return mask_tokens(
        ids,
        special,
        mask_token_id=MASK,
        vocab_size=VOCABULARY,
        ratio=ratio,
        generator=seeded(seed),
        word_ids=words,
        always_mask=always_mask,
    )


def test_special_tokens_stay_and_labels_hold_the_truth() -> None:
    ids, special = texts(200, [1, 5, 18], 20)
    result = hide(ids, special, ratio=0.4)
    hidden = result.labels != IGNORED
    assert not (hidden & special).any()
    assert torch.equal(result.input_ids[~hidden], ids[~hidden])
    assert torch.equal(result.labels[hidden], ids[hidden])


def test_each_text_hides_its_rounded_share_and_at_least_one() -> None:
    real = [1, 2, 7, 8, 18]
    ids, special = texts(50, real, 20)
    hidden = (hide(ids, special).labels != IGNORED).sum(1).tolist()
    # 0.15 of 1, 2, 7, 8 and 18 tokens: 0.15, 0.3, 1.05, 1.2 and 2.7.
    assert hidden == [1, 1, 1, 1, 3] * 10


def test_a_text_without_tokens_hides_none() -> None:
    ids, special = texts(3, [0, 4], 8)
    hidden = (hide(ids, special).labels != IGNORED).sum(1)
    assert hidden.tolist() == [0, 1, 0]


def test_hidden_tokens_become_mask_random_or_stay_in_bert_shares() -> None:
    ids, special = texts(400, [50], 52)
    result = hide(ids, special, ratio=0.5)
    hidden = result.labels != IGNORED
    assert hidden.sum() == 400 * 25
    seen, truth = result.input_ids[hidden], ids[hidden]
    masked = (seen == MASK).float().mean()
    kept = (seen == truth).float().mean()
    # A random token is the true one, or the mask token, once in a thousand; four standard errors of 10,000.
    assert abs(masked - 0.8) < 4 * (0.16 / 10_000) ** 0.5 + 1e-3
    assert abs(kept - 0.1) < 4 * (0.09 / 10_000) ** 0.5 + 1e-3
    random = seen[(seen != MASK) & (seen != truth)]
    assert random.min() < 0.05 * VOCABULARY
    assert random.max() >= 0.95 * VOCABULARY
    share = hidden[:, 1:51].float().mean(0)
    assert (share - 0.5).abs().max() < 4.5 * 0.5 / 400**0.5


def test_where_every_hidden_token_is_masked_the_same_ones_are_chosen() -> None:
    ids, special = texts(40, [50], 52)
    bert, masked = (hide(ids, special, ratio=0.5, always_mask=always) for always in (False, True))
    assert torch.equal(masked.labels, bert.labels)
    hidden = masked.labels != IGNORED
    assert (masked.input_ids[hidden] == MASK).all()
    assert torch.equal(masked.input_ids[~hidden], ids[~hidden])


def test_a_token_mask_depends_on_the_generator_alone() -> None:
    ids, special = texts(10, [12], 14)
    torch.manual_seed(1)
    first = hide(ids, special, seed=4)
    torch.manual_seed(2)
    again = hide(ids, special, seed=4)
    assert torch.equal(first.input_ids, again.input_ids)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, hide(ids, special, seed=5).labels)


def test_whole_words_are_hidden_whole_or_not_at_all() -> None:
    # Seven words of 1, 3, 2, 1, 4, 2, 3 tokens.
    sizes = [1, 3, 2, 1, 4, 2, 3]
    own = [word for word, size in enumerate(sizes) for _ in range(size)]
    words = torch.tensor([[-1, *own, -1, -1]]).expand(60, -1)
    ids = torch.randint(10, VOCABULARY, words.shape, generator=seeded(1))
    hidden = hide(ids, words < 0, ratio=0.4, words=words).labels != IGNORED
    split_apart = set()
    for row in range(60):
        touched = {int(words[row, place]) for place in range(words.shape[1]) if hidden[row, place]}
        assert len(touched) == 3  # 0.4 of 7 words is 2.8
        assert int(hidden[row].sum()) == sum(sizes[word] for word in touched)
        split_apart |= touched
    assert split_apart == set(range(7))


def test_words_that_are_numbered_with_gaps_are_found() -> None:
    words = torch.tensor([[-1, 0, 5, 5, 9, -1, -1, -1, -1, -1]])
    hidden = hide(torch.full((1, 10), 50), words < 0, ratio=1.0, words=words).labels != IGNORED
    assert torch.equal(hidden, words >= 0)


@pytest.mark.parametrize("size", [2, 3, 4, 7, 16])
def test_half_of_the_texts_get_another_image(size: int) -> None:
    partners: list[set[int]] = [set() for _ in range(size)]
    for seed in range(300):
        source, match = swap_images(size, seeded(seed))
        own = torch.arange(size)
        assert torch.equal(source == own, match == 1)
        assert int((match == 0).sum()) == size // 2
        for text, image in enumerate(source.tolist()):
            partners[text].add(image)
    assert partners == [set(range(size))] * size


def test_one_pair_cannot_be_swapped() -> None:
    source, match = swap_images(1, seeded(0))
    assert (source.tolist(), match.tolist()) == ([0], [1])
