"""Histogram blend."""

import numpy as np
import pytest

from fresco_core.propagation import histogram
from tests.fresco_core.propagation.scene import texture


def spread(picture: np.ndarray) -> np.ndarray:
    return histogram.to_lab(picture).std((0, 1))


def test_blend_keeps_contrast_where_an_average_loses_it():
    first, second = texture(40, 40, seed=1), texture(40, 40, seed=2)
    average = ((first.astype(int) + second) // 2).astype(np.uint8)
    blended = histogram.blend(first, second, first, 0.5)
    assert spread(average)[0] < 0.85 * spread(first)[0]
    np.testing.assert_allclose(spread(blended), spread(first), rtol=0.08)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_ends_are_one_of_the_pictures(weight: float):
    first, second = texture(40, 40, seed=1), texture(40, 40, seed=2)
    expected = second if weight else first
    blended = histogram.blend(first, second, expected, weight)
    # Lab with eight bits and back.
    assert np.abs(blended.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("level", [0, 77, 255])
def test_constant_pictures_stay_as_they_are(level: int):
    flat = np.full((6, 7, 3), level, np.uint8)
    assert np.abs(histogram.blend(flat, flat, flat, 0.5).astype(int) - level).max() <= 1
    # One constant picture says nothing about the pattern: it comes from the other.
    other = texture(6, 7)
    assert spread(histogram.blend(flat, other, other, 0.5))[0] > 1
