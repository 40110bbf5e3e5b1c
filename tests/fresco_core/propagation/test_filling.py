"""Holes."""

import time

import numpy as np
import pytest

from fresco_core.propagation import filling
from tests.fresco_core.propagation.scene import texture


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_by_a_pyramid_what_is_known_stays(share: float):
    picture = texture(61, 45)
    hole = np.random.default_rng(0).random((61, 45)) < share
    filled = filling.fill(picture, hole, 1, 0)
    np.testing.assert_array_equal(filled[~hole], picture[~hole])
    assert filled.dtype == np.uint8
    # Averages of what is known: nothing beyond it.
    known = picture[~hole]
    assert (filled >= known.min(0)).all()
    assert (filled <= known.max(0)).all()


def test_by_a_pyramid_the_nearest_counts_most():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :20], picture[:, 44:] = 40, 200
    hole = np.zeros((64, 64), np.bool_)
    hole[:, 20:44] = True
    row = filling.fill(picture, hole, 1, 0)[32, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert abs(row[22] - 40) < 30
    assert abs(row[41] - 200) < 30
    assert np.diff(row).max() < 40


def test_by_a_pyramid_a_hole_that_is_everything_is_black():
    picture = texture(9, 16)
    assert not filling.fill(picture, np.ones((9, 16), np.bool_), 1, 0).any()


def test_by_a_pyramid_the_cost_does_not_grow_with_the_hole():
    picture = texture(512, 512)
    seconds = []
    for side in (8, 500):
        hole = np.zeros((512, 512), np.bool_)
        hole[:side, :side] = True
        filling.fill(picture, hole, 1, 0)
        start = time.process_time()
        for _ in range(5):
            filling.fill(picture, hole, 1, 0)
        seconds.append((time.process_time() - start) / 5)
    assert seconds[1] < 0.1
    assert seconds[1] < 6 * seconds[0]


def test_without_a_hole_nothing_is_done():
    picture = texture(8, 8)
    assert filling.fill(picture, np.zeros((8, 8), np.bool_), 5, 0) is picture


def test_a_large_hole_does_not_take_long():
    picture = texture(512, 512)
    hole = np.zeros((512, 512), np.bool_)
    hole[100:400, 100:400] = True
    start = time.process_time()
    filling.fill(picture, hole, 48, 4)
    assert time.process_time() - start < 1
