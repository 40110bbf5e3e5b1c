"""Warps and occlusion on a device are the CPU's to the bit."""

import numpy as np
import pytest

from fresco_core.propagation import warp as on_cpu
from fresco_core.propagation.gpu import warp
from tests.fresco_core.propagation.gpu.random_input import SIZES, flows, pictures, same, sent


@pytest.mark.parametrize("size", SIZES)
def test_what_is_seen_through_a_flow(size: tuple[int, int]):
    flow, _ = flows(size)
    for picture in (pictures(size, channels=6), pictures(size)[..., 0] > 99):
        found = warp.warp_nearest(sent(picture), sent(flow))
        same(found, [on_cpu.warp_nearest(*pair) for pair in zip(picture, flow, strict=True)])


@pytest.mark.parametrize("size", SIZES)
def test_what_is_occluded(size: tuple[int, int]):
    flow, back = flows(size)
    expected = [on_cpu.occlusion(*pair) for pair in zip(flow, back, strict=True)]
    if min(size) > 30:
        assert 0.05 < np.mean(expected) < 0.95
    same(warp.occlusion(sent(flow), sent(back)), expected)


def test_flows_that_are_no_numbers_lead_nowhere():
    flow, back = flows((8, 8), 1)
    flow[...] = np.nan
    assert not warp.warp_nearest(sent(pictures((8, 8), 1)), sent(flow)).any()
    same(warp.occlusion(sent(flow), sent(back)), [on_cpu.occlusion(flow[0], back[0])])
