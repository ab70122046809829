"""Intervals over images, against a slow loop, theory, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umd.metrics.images import image_numbers
from umd.metrics.intervals import bootstrap_interval, image_interval


def test_an_image_has_one_number_everywhere() -> None:
    names = ["images/a.jpg", "images/b.jpg", "images/a.jpg", "Größe.png"]
    numbers = image_numbers(names)
    assert numbers.dtype == torch.int64 and (numbers >= 0).all()
    assert numbers[0] == numbers[2] and len(set(numbers.tolist())) == 3
    # The first 63 bits of SHA-256, by whoever computes them: `printf images/a.jpg | sha256sum`.
    assert numbers[0] == 0x32F7E84ED700CC22 >> 1


def test_the_interval_is_that_of_drawing_whole_images_in_a_loop() -> None:
    random = np.random.default_rng(3)
    images = np.repeat(np.arange(40), random.integers(1, 7, size=40))
    values = random.random(len(images)) < random.random(40)[images]
    means = []
    for _ in range(20_000):
        rows = np.concatenate([np.flatnonzero(images == image) for image in random.integers(40, size=40)])
        means.append(100 * values[rows].mean())
    names = np.array([f"image {number}" for number in images])
    assert image_interval(values, names, resamples=20_000) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.6)


def test_with_one_question_an_image_it_is_the_interval_over_questions() -> None:
    correct = np.random.default_rng(4).random(500) < 0.7
    order = np.random.default_rng(5).permutation(500)
    over_images = image_interval(correct, order, resamples=20_000)
    assert over_images == pytest.approx(bootstrap_interval(correct, resamples=20_000), abs=0.21)


@pytest.mark.parametrize("questions", [4, 9])
def test_it_is_wider_by_the_root_of_the_questions_that_are_answered_alike(questions: int) -> None:
    images = np.repeat(np.arange(400), questions)
    correct = (np.arange(400) % 5 < 3)[images]
    low, high = image_interval(correct, images, resamples=20_000)
    plain = bootstrap_interval(correct, resamples=20_000)
    assert (high - low) / (plain[1] - plain[0]) == pytest.approx(np.sqrt(questions), rel=0.05)


def test_it_covers_the_true_accuracy_where_the_interval_over_questions_does_not() -> None:
    random = np.random.default_rng(6)
    images = np.repeat(np.arange(100), 5)
    covered = {"images": 0, "questions": 0}
    for trial in range(200):
        share = random.beta(1.5, 1.0, size=100)  # mean 0.6; what an image's questions have in common
        correct = random.random(500) < share[images]
        for name, (low, high) in (
            ("images", image_interval(correct, images, seed=trial)),
            ("questions", bootstrap_interval(correct, seed=trial)),
        ):
            covered[name] += low <= 60 <= high
    # 200 trials at 95 % have a standard deviation of 1.5 points.
    assert covered["images"] / 200 >= 0.9
    assert covered["questions"] / 200 < 0.9


def test_one_image_gives_a_point_and_the_same_call_the_same_interval() -> None:
    assert image_interval([1, 0, 1, 1], ["a"] * 4) == (75.0, 75.0)
    values, images = np.arange(30) % 3 == 0, np.arange(30) // 2
    assert image_interval(values, images) == image_interval(torch.tensor(values), torch.tensor(images))
    with pytest.raises(ValueError, match="one length"):
        image_interval([1, 0], ["a"])
