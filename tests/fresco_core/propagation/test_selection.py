"""Choice masks."""

import numpy as np

from fresco_core.propagation.selection import assemble, choose, steady


def test_smaller_weighted_error_wins():
    first = np.array([[1.0, 4.0, 3.0]], np.float32)
    second = np.array([[2.0, 1.0, 3.0]], np.float32)
    assert choose(first, second, 0.5).tolist() == [[False, True, True]]
    assert choose(first, second, 0.1).tolist() == [[False, False, False]]
    assert choose(first, second, 0.9).tolist() == [[True, True, True]]


def test_the_ends_take_one_picture_whatever_the_errors():
    zero, one = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    assert not choose(one, zero, 0.0).any()
    assert choose(zero, one, 1.0).all()


def test_what_went_over_stays_and_moves_along():
    previous = np.zeros((4, 5), np.bool_)
    previous[1, 1] = True
    flow = np.zeros((2, 4, 5), np.float32)
    flow[0] = -1
    mask = np.zeros((4, 5), np.bool_)
    mask[3, 3] = True
    assert np.argwhere(steady(mask, previous, flow)).tolist() == [[1, 2], [3, 3]]


def test_assembled_pixels_come_from_the_chosen_picture():
    first = np.zeros((2, 2, 3), np.uint8)
    second = np.full((2, 2, 3), 9, np.uint8)
    mask = np.array([[True, False], [False, True]])
    picture = assemble(first, second, mask)
    assert picture.dtype == np.uint8
    assert (picture[..., 0] == np.where(mask, 9, 0)).all()
