"""Guides are the CPU's to the bit."""

import pytest

from fresco_core.propagation import guides as on_cpu
from fresco_core.propagation.gpu import guides, parts
from fresco_core.propagation.warp import occlusion
from tests.fresco_core.propagation.gpu.random_input import SIZES, flows, pictures, same, sent


@pytest.mark.parametrize("size", SIZES)
def test_edges(size: tuple[int, int]):
    picture = pictures(size)
    same(guides.edges(sent(picture)), [on_cpu.edges(one) for one in picture])


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_what_is_carried_does_not_depend_on_how_many_go_together(
    at_once: int, monkeypatch: pytest.MonkeyPatch
):
    size = (37, 50)
    monkeypatch.setattr(parts, "PART_PIXELS", at_once * size[0] * size[1])
    picture, (flow, back) = pictures(size, channels=6), flows(size)
    expected = [
        on_cpu.carry(one, to, occlusion(to, fro), 1, 0)
        for one, to, fro in zip(picture, flow, back, strict=True)
    ]
    same(guides.carry(sent(picture), sent(flow), sent(back)), expected)
