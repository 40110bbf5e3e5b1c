"""Guides, merging and whole segments on a GPU against the same on the CPU. Skipped without one."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.propagation import PropagationOptions, propagate
from fresco_core.propagation.gpu import (
    Segment,
    filling,
    footprint,
    guides,
    histogram,
    lab,
    paint_segments,
    selection,
    warp,
)
from fresco_core.propagation.gpu.poisson import PoissonFusion
from tests.fresco_core.propagation.gpu.random_input import flows, pictures, sent
from tests.fresco_core.propagation.scene import psnr, sliding, stylise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SIZES = [(1, 7), (37, 50), (100, 140), (701, 899)]
QUICK = PropagationOptions(votes=4)


def same_on_both(function, *arrays: np.ndarray) -> None:
    """The device's result is the CPU's to the bit."""
    tensors = [sent(array) for array in arrays]
    found = function(*[tensor.cuda() for tensor in tensors]).cpu()
    torch.testing.assert_close(found, function(*tensors), rtol=0, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_guides_are_the_same(size: tuple[int, int]):
    picture, (flow, back) = pictures(size, channels=6), flows(size)
    same_on_both(warp.occlusion, flow, back)
    same_on_both(warp.warp_nearest, picture, flow)
    same_on_both(guides.edges, picture[..., :3])
    same_on_both(guides.carry, picture, flow, back)
    for share in (0.0, 0.4, 1.0):
        hole = np.random.default_rng(2).random(picture.shape[:3]) < share
        same_on_both(filling.fill, picture, hole)


@pytest.mark.parametrize("size", SIZES)
def test_selection_and_histogram_are_the_same(size: tuple[int, int]):
    many, weights = pictures(size, channels=9), np.array([0.0, 0.3, 1.0])
    first, second, like = many[..., :3], many[..., 3:6], many[..., 6:]
    same_on_both(histogram.blend, first, second, like, weights)
    same_on_both(lab.to_lab, first)
    errors = [np.floor(picture[..., 0] / 32).astype(np.float32) for picture in (first, second)]
    same_on_both(selection.choose, *errors, weights)
    mask, flow = many[..., 0] > 200, flows(size)[0]
    same_on_both(selection.steady, mask, many[..., 1] > 200, flow)


@pytest.mark.parametrize("size", SIZES)
def test_poisson_is_the_same_but_for_rounding(size: tuple[int, int]):
    many = [sent(pictures(size, channels=9)[..., 3 * i : 3 * i + 3]) for i in range(3)]
    mask = many[0][..., 0] > 99
    cpu, cuda = (
        PoissonFusion(*size, PropagationOptions(), torch.device(name)) for name in ("cpu", "cuda")
    )
    target = many[2].float() - 128
    found = cuda.solve(*[a.cuda() for a in (target, *many[:2], mask)]).cpu()
    torch.testing.assert_close(found, cpu.solve(target, *many[:2], mask), rtol=0, atol=3e-3)


@pytest.mark.parametrize("side", [100, 256])
def test_poisson_is_the_same_alone_and_together(side: int):
    """Fourier transforms of 256 are not, if as many as there are go at once."""
    many = [sent(pictures((side, side), channels=9)[..., 3 * i : 3 * i + 3]) for i in range(3)]
    given = [each.cuda() for each in (many[2].float() - 128, *many[:2], many[0][..., 0] > 99)]
    fusion = PoissonFusion(side, side, PropagationOptions(), torch.device("cuda"))
    alone = torch.cat([fusion.solve(*[each[i : i + 1] for each in given]) for i in range(3)])
    torch.testing.assert_close(fusion.solve(*given), alone, rtol=0, atol=0)


def scene(count: int, height: int = 96, width: int = 120, step: tuple[int, int] = (2, 1)):
    frames, forward, backward = sliding(count, height, width, step)
    forward[:, 0, 15:30, 19:40] += 3
    keys = stylise(frames)
    return Segment(frames, keys[0], keys[-1], forward, backward)


GIVEN = [scene(6), scene(3, step=(1, 2)), scene(2), scene(5, 61, 47), scene(5, step=(0, 3))]


def test_segments_are_as_near_to_the_truth_as_the_cpus():
    for segment, found in zip(GIVEN, paint_segments(GIVEN, QUICK, "cuda"), strict=True):
        assert found.shape == (segment.between, *segment.size, 3)
        if segment.between:
            on_cpu = propagate(
                segment.frames_THWC,
                segment.first_key_HWC,
                segment.second_key_HWC,
                segment.forward_flows,
                segment.backward_flows,
                options=QUICK,
            )
            truth = stylise(segment.frames_THWC)[1:-1]
            assert psnr(found, truth) > psnr(on_cpu, truth) - 0.5


def test_segments_are_the_same_alone_together_and_again():
    together = paint_segments(GIVEN, QUICK, "cuda")
    again = paint_segments(GIVEN[::-1], QUICK, "cuda")[::-1]
    alone = [paint_segments([segment], QUICK, "cuda")[0] for segment in GIVEN]
    for frames, others, single in zip(together, again, alone, strict=True):
        np.testing.assert_array_equal(frames, others)
        np.testing.assert_array_equal(frames, single)


def test_nothing_is_asked_of_the_device_on_the_way():
    """However many frames there are, as often is it waited for."""

    def waits(count: int) -> int:
        segment = scene(count)
        paint_segments([segment], QUICK, "cuda")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                paint_segments([segment], QUICK, "cuda")
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return len([each for each in caught if "called a synchronizing" in str(each.message)])

    assert waits(3) == waits(7) > 0


def taken(given: list[Segment]) -> int:
    """Bytes of the device that these segments take at most."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    paint_segments(given, replace(QUICK, votes=1), "cuda")
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("count", [1, 5])
def test_no_more_memory_is_taken_than_was_estimated(count: int):
    given = [scene(5, 512, 640)] * count
    paint_segments([scene(3)], QUICK, "cuda")  # tables
    expected = footprint.of_batch(given)
    assert expected / 4 < taken(given) + footprint.TABLES < expected


def test_out_of_memory_leaves_nothing_behind():
    given = [scene(4, 256, 320)] * 4
    paint_segments(given[:1], QUICK, "cuda")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    share = (torch.cuda.memory_reserved() + (64 << 20)) / torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            paint_segments(given, QUICK, "cuda")
        assert torch.cuda.memory_allocated() == before
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(paint_segments(given, QUICK, "cuda")) == 4
