"""Guides: directions, borders, holes."""

import numpy as np
import pytest

from fresco_core.propagation import guides
from fresco_core.propagation.positions import positions
from fresco_core.propagation.warp import warp_nearest
from tests.fresco_core.propagation.scene import constant_flow, texture


def test_edges_of_a_bright_dot():
    picture = np.zeros((5, 5, 3), np.uint8)
    picture[2, 2] = 50
    found = guides.edges(picture)
    assert found[2, 2].tolist() == [200] * 3
    found[2, 2] = 0
    # The neighbours would be negative.
    assert not found.any()


def test_edges_saturate_and_a_flat_picture_has_none():
    picture = np.full((4, 6, 3), 90, np.uint8)
    assert not guides.edges(picture).any()
    picture[1, 1] = 255
    assert guides.edges(picture)[1, 1, 0] == 255


def test_positions_run_from_corner_to_corner():
    picture = positions(33, 70)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[-1, 0].tolist() == [255, 0, 0]
    assert picture[0, -1].tolist() == [0, 255, 0]
    assert (np.diff(picture[:, 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(("radius", "scale"), [(5, 1), (30, 1), (12, 3), (48, 4), (1, 0)])
def test_carry_fills_holes_plausibly(radius: int, scale: int):
    picture = positions(41, 62)
    flow = constant_flow(41, 62, -6, 0)
    hole = np.zeros((41, 62), np.bool_)
    hole[:, :6] = True
    hole[10:20, 20:32] = True
    carried = guides.carry(picture, flow, hole, radius, scale)
    truth = warp_nearest(picture, flow)
    np.testing.assert_array_equal(carried[~hole], truth[~hole])
    inner = np.abs(carried[10:20, 20:32].astype(int) - truth[10:20, 20:32].astype(int))
    assert inner.mean() < 15
    assert carried[:, :6, 0].astype(int).std() > 50


@pytest.mark.parametrize("scale", [0, 1, 4])
def test_carry_with_everything_occluded_works(scale: int):
    picture = texture(17, 16)
    everything = np.ones((17, 16), np.bool_)
    carried = guides.carry(picture, constant_flow(17, 16, 0, 0), everything, 5, scale)
    assert carried.shape == picture.shape
    assert carried.dtype == np.uint8
