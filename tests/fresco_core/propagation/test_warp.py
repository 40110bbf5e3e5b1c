"""What is seen through a flow."""

import numpy as np
import pytest

from fresco_core.propagation import warp
from tests.fresco_core.propagation.scene import constant_flow, sliding, texture


@pytest.mark.parametrize("see", [warp.warp_nearest, warp.warp_linear])
def test_warp_reads_from_where_the_flow_points(see):
    picture = texture(12, 16)
    warped = see(picture, constant_flow(12, 16, 3, -2))
    np.testing.assert_array_equal(warped[2:, :-3], picture[:-2, 3:])
    assert not warped[:2].any()
    assert not warped[:, -3:].any()


def test_linear_warp_half_a_pixel_outside_gives_half_the_border():
    picture = np.full((4, 4), 100, np.uint8)
    warped = warp.warp_linear(picture, constant_flow(4, 4, -0.5, 0))
    assert warped[0].tolist() == [50, 100, 100, 100]


def test_warp_of_wild_flows_is_empty():
    picture = texture(8, 8)
    for value in (1e9, -1e9):
        assert not warp.warp_linear(picture, constant_flow(8, 8, value, value)).any()
        assert not warp.warp_nearest(picture, constant_flow(8, 8, value, value)).any()


def test_nearest_warp_takes_masks():
    mask = np.zeros((5, 5), np.bool_)
    mask[2, 3] = True
    warped = warp.warp_nearest(mask, constant_flow(5, 5, 1, 0))
    assert warped.dtype == np.bool_
    assert np.argwhere(warped).tolist() == [[2, 2]]


def test_consistent_flows_are_occluded_only_where_they_leave():
    _, forward, backward = sliding(2, 20, 24, (2, 1))
    occluded = warp.occlusion(backward[0], forward[0])
    assert not occluded[1:, 2:].any()
    assert occluded[0].all()
    assert occluded[:, :2].all()


def test_inconsistent_flows_are_occluded():
    flow = constant_flow(10, 10, 0, 0)
    back = constant_flow(10, 10, 0, 0)
    back[0, 4:6, 4:6] = 1
    assert np.argwhere(warp.occlusion(flow, back)).tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]
