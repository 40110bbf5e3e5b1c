"""Votes against plain numpy, and what they change in a packed target."""

import numpy as np

from fresco_core.propagation import kernels, votes
from fresco_core.propagation.packing import Packing


def test_vote_is_the_rounded_mean_of_the_overlapping_patches():
    rng = np.random.default_rng(0)
    height, width, radius = 7, 9, 1
    style = rng.integers(0, 256, (height, width, 2)).astype(np.uint8)
    field, _ = kernels.scatter(height * width, width, height, 3, np.uint64(7))
    image = np.zeros_like(style)
    stale = np.ones((height, width), np.uint8)
    stale[3, 4] = 0
    votes.vote(votes.lanes(style), width, field, stale, image, (0, 0, 0))
    y, x = field >> 16, field & 0xFFFF
    for row in range(height):
        for column in range(width):
            voices = [
                style[y[j] - dy, x[j] - dx]
                for dy in range(-radius, radius + 1)
                for dx in range(-radius, radius + 1)
                if 0 <= row + dy < height and 0 <= column + dx < width
                for j in [(row + dy) * width + column + dx]
            ]
            expected = np.floor(np.mean(voices, axis=0) + 0.5)
            if (row, column) == (3, 4):
                expected = np.zeros(2)
            np.testing.assert_array_equal(image[row, column], expected)


def test_small_steps_add_up_until_they_count():
    packing = Packing.of(np.array([1.0, 1.0, 1.0]), 5)
    image = np.full((6, 8, 3), 100, np.uint8)
    target = packing.blank((6, 8))
    packing.put(target, image, 0)
    stale, changed = np.ones((6, 8), np.uint8), np.zeros((6, 8), np.uint8)

    def repack(still: int) -> int:
        arguments = (packing.tables, target, packing.depth, packing.margin, changed)
        votes.repack(image, stale, still, *arguments)
        return int(changed.sum())

    image[2, 3, 1] += 1
    image[0, 0] += 1
    assert repack(1) == 0
    image[2, 3, 1] += 1
    image[0, 0] += 1
    assert repack(1) == 2
    assert changed[2, 3] == changed[0, 0] == 1
    expected = packing.blank((6, 8))
    packing.put(expected, image, 0)
    np.testing.assert_array_equal(target, expected)  # and the border that repeats the corner
    assert repack(0) == 0
