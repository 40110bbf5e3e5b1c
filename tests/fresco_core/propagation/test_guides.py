"""Guides: directions, borders, holes."""

import time

import numpy as np
import pytest

from fresco_core.propagation import guides
from tests.fresco_core.propagation.scene import sliding, texture


def constant_flow(height: int, width: int, x: float, y: float) -> np.ndarray:
    flow = np.empty((2, height, width), np.float32)
    flow[0], flow[1] = x, y
    return flow


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
    picture = guides.positions(33, 70)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[-1, 0].tolist() == [255, 0, 0]
    assert picture[0, -1].tolist() == [0, 255, 0]
    assert (np.diff(picture[:, 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("warp", [guides.warp_nearest, guides.warp_linear])
def test_warp_reads_from_where_the_flow_points(warp):
    picture = texture(12, 16)
    warped = warp(picture, constant_flow(12, 16, 3, -2))
    np.testing.assert_array_equal(warped[2:, :-3], picture[:-2, 3:])
    assert not warped[:2].any()
    assert not warped[:, -3:].any()


def test_linear_warp_half_a_pixel_outside_gives_half_the_border():
    picture = np.full((4, 4), 100, np.uint8)
    warped = guides.warp_linear(picture, constant_flow(4, 4, -0.5, 0))
    assert warped[0].tolist() == [50, 100, 100, 100]


def test_warp_of_wild_flows_is_empty():
    picture = texture(8, 8)
    for value in (1e9, -1e9):
        assert not guides.warp_linear(picture, constant_flow(8, 8, value, value)).any()
        assert not guides.warp_nearest(picture, constant_flow(8, 8, value, value)).any()


def test_nearest_warp_takes_masks():
    mask = np.zeros((5, 5), np.bool_)
    mask[2, 3] = True
    warped = guides.warp_nearest(mask, constant_flow(5, 5, 1, 0))
    assert warped.dtype == np.bool_
    assert np.argwhere(warped).tolist() == [[2, 2]]


def test_consistent_flows_are_occluded_only_where_they_leave():
    _, forward, backward = sliding(2, 20, 24, (2, 1))
    occluded = guides.occlusion(backward[0], forward[0])
    assert not occluded[1:, 2:].any()
    assert occluded[0].all()
    assert occluded[:, :2].all()


def test_inconsistent_flows_are_occluded():
    flow = constant_flow(10, 10, 0, 0)
    back = constant_flow(10, 10, 0, 0)
    back[0, 4:6, 4:6] = 1
    assert np.argwhere(guides.occlusion(flow, back)).tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]


@pytest.mark.parametrize(("radius", "scale"), [(5, 1), (30, 1), (12, 3), (48, 4)])
def test_carry_fills_holes_plausibly(radius: int, scale: int):
    picture = guides.positions(41, 62)
    flow = constant_flow(41, 62, -6, 0)
    hole = np.zeros((41, 62), np.bool_)
    hole[:, :6] = True
    hole[10:20, 20:32] = True
    carried = guides.carry(picture, flow, hole, radius, scale)
    truth = guides.warp_nearest(picture, flow)
    np.testing.assert_array_equal(carried[~hole], truth[~hole])
    inner = np.abs(carried[10:20, 20:32].astype(int) - truth[10:20, 20:32].astype(int))
    assert inner.mean() < 15
    assert carried[:, :6, 0].astype(int).std() > 50


def test_a_large_hole_does_not_take_long():
    picture = texture(512, 512)
    hole = np.zeros((512, 512), np.bool_)
    hole[100:400, 100:400] = True
    start = time.process_time()
    guides.fill(picture, hole, 48, 4)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("scale", [1, 4])
def test_carry_with_everything_occluded_works(scale: int):
    picture = texture(17, 16)
    everything = np.ones((17, 16), np.bool_)
    carried = guides.carry(picture, constant_flow(17, 16, 0, 0), everything, 5, scale)
    assert carried.shape == picture.shape
    assert carried.dtype == np.uint8
