"""Segments painted together against `propagate`, one by one."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.errors import KernelsError
from fresco_core.propagation import PropagationOptions, propagate
from fresco_core.propagation.gpu import Segment, chains, footprint, paint_segments, segments
from fresco_core.propagation.painter import Painter
from tests.fresco_core.propagation.scene import psnr, sliding, stylise

QUICK = PropagationOptions(votes=3, sweeps=2, still=1)  # the same effort on the CPU and a device
SIZE = (29, 40)


class OneByOne:
    """The CPU's painter in place of the device's: chain by chain."""

    def __init__(self, styles, sources, weights, *, patch, uniformity):
        sides = zip(styles, *sources, strict=True)
        self._painters = [
            Painter(
                *([style.numpy(), [side.numpy() for side in of_chain], weights]),
                style.shape[:2],
                patch=patch,
                uniformity=uniformity,
            )
            for style, *of_chain in sides
        ]

    def paint(self, targets, effort, seed, *, chains):
        results = [
            self._painters[chain].paint([target.numpy() for target in of_chain], effort, seed)
            for chain, *of_chain in zip(chains, *targets, strict=True)
        ]
        images = np.stack([result.image_HWC for result in results])
        errors = np.stack([result.error_HW for result in results])
        return torch.from_numpy(images), torch.from_numpy(errors)


def scene(count: int, size: tuple[int, int] = SIZE, step: tuple[int, int] = (2, 1)) -> Segment:
    """Flows that are wrong in places, so that there are holes."""
    frames, forward, backward = sliding(count, *size, step)
    forward[:, 0, 5:12, 9:20] += 3
    keys = stylise(frames)
    return Segment(frames, keys[0], keys[-1], forward, backward)


def one_by_one(given: list[Segment], options: PropagationOptions) -> list[np.ndarray]:
    return [
        propagate(
            segment.frames_THWC,
            segment.first_key_HWC,
            segment.second_key_HWC,
            segment.forward_flows,
            segment.backward_flows,
            options=options,
        )
        for segment in given
    ]


GIVEN = [scene(3), scene(5, step=(1, 2)), scene(2), scene(4, (16, 21)), scene(4)]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "BatchPainter", OneByOne)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("timing", ["symmetric", "published"])
@pytest.mark.parametrize("blend", ["histogram", "selection"])
def test_without_poisson_the_frames_are_the_cpus(timing: str, blend: str):
    options = replace(QUICK, timing=timing, blend=blend, poisson=False)
    found = paint_segments(GIVEN, options, "cpu")
    for frames, expected in zip(found, one_by_one(GIVEN, options), strict=True):
        np.testing.assert_array_equal(frames, expected)
        assert frames.dtype == np.uint8


@pytest.mark.usefixtures("on_cpu")
def test_with_the_defaults_the_frames_are_the_cpus_but_for_rounding():
    found = paint_segments(GIVEN, QUICK, "cpu")
    for frames, expected in zip(found, one_by_one(GIVEN, QUICK), strict=True):
        assert frames.shape == expected.shape
        if len(frames):
            assert np.mean(frames != expected) < 2e-3
            assert psnr(frames, expected) > 55


@pytest.mark.usefixtures("on_cpu")
def test_every_frame_is_told_of():
    told: Counter[str] = Counter()
    paint_segments(GIVEN, QUICK, "cpu", on_frame=lambda: told.update(["frame"]))
    assert told["frame"] == 3 * sum(segment.between for segment in GIVEN)


@pytest.mark.usefixtures("on_cpu")
def test_read_only_strided_and_half_precision_arrays():
    segment = GIVEN[1]
    arrays = [
        np.asfortranarray(segment.frames_THWC),
        segment.first_key_HWC.copy(),
        segment.second_key_HWC[:, ::-1][:, ::-1],
        segment.forward_flows.astype(np.float16),
        segment.backward_flows.astype(np.float16),
    ]
    for array in arrays:
        array.flags.writeable = False
    (found,) = paint_segments([Segment(*arrays)], QUICK, "cpu")
    np.testing.assert_array_equal(found, paint_segments([segment], QUICK, "cpu")[0])


def test_the_devices_own_painter_follows_the_scene():
    """With what paints on a device, however slow it is here; together as alone."""
    given = [scene(4, (24, 36)), scene(3, (24, 36), (1, 3))]
    options = replace(QUICK, votes=2)
    found = paint_segments(given, options, "cpu")
    for segment, frames in zip(given, found, strict=True):
        truth = stylise(segment.frames_THWC)[1:-1]
        copies = np.broadcast_to(segment.first_key_HWC, truth.shape)
        assert psnr(frames, truth) > psnr(copies, truth) + 2
    np.testing.assert_array_equal(paint_segments(given[1:], options, "cpu")[0], found[1])


def of(*sizes: tuple[int, int]) -> list[Segment]:
    """Segments of so many frames between and so many rows."""
    return [scene(between + 2, (rows, 16)) for between, rows in sizes]


def test_those_of_a_size_go_together_the_longest_first():
    given = of((1, 16), (3, 16), (2, 20), (0, 16), (4, 16))
    assert list(segments.batches(given, None)) == [[4, 1, 0], [2]]


def test_no_more_go_together_than_memory_holds():
    given = of((2, 16), (2, 16), (2, 16))
    one, two = (footprint.of_batch(given[:count]) for count in (1, 2))
    assert list(segments.batches(given, two)) == [[0, 1], [2]]
    assert list(segments.batches(given, two - 1)) == [[0], [1], [2]]
    with pytest.raises(torch.OutOfMemoryError, match=r"4 frames of 16x16 needs .* MiB"):
        list(segments.batches(given, one - 1))


def test_what_is_taken_for_a_moment_is_bounded():
    (one,) = of((2, 1024))
    many = footprint.PART_PIXELS // (2 * 1024 * 16)
    taken = [footprint.of_batch([one] * count) for count in (many, many + 1)]
    assert taken[1] - taken[0] == footprint.of_segment(one)
    assert footprint.of_batch([one] * 2) - footprint.of_batch([one]) > footprint.of_segment(one)


def test_longer_and_larger_segments_take_more():
    short, long, large = of((2, 16), (5, 16), (2, 64))
    taken = [footprint.of_segment(segment) for segment in (short, long, large)]
    assert taken[0] < taken[1] < taken[2]
    assert taken[2] == 4 * taken[0]


def test_out_of_memory_frees_what_was_taken(monkeypatch: pytest.MonkeyPatch):
    """The error holds on to no tensor of those that called."""

    def exhausted() -> None:
        raise torch.OutOfMemoryError("no memory left")

    assert str(freed(monkeypatch, exhausted, torch.OutOfMemoryError)) == "no memory left"


def within_triton(kind: type[Exception], text: str) -> Callable[[], None]:
    """A function of a module of Triton that raises this."""
    names = {"__name__": "triton.runtime.build", "kind": kind, "text": text}
    exec("def build():\n    raise kind(text)", names)
    return names["build"]


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        (RuntimeError, "Failed to find C compiler.\nPlease specify one", "compiler. Please"),
        (OSError, "", "OSError"),
    ],
)
def test_kernels_that_cannot_be_built(
    kind: type[Exception], text: str, shown: str, monkeypatch: pytest.MonkeyPatch
):
    told = str(freed(monkeypatch, within_triton(kind, text), KernelsError))
    assert shown in told
    assert "frescod doctor" in told
    assert "\n" not in told


def test_without_triton(monkeypatch: pytest.MonkeyPatch):
    def absent() -> None:
        raise ModuleNotFoundError("No module named 'triton'")

    assert "named 'triton'" in str(freed(monkeypatch, absent, KernelsError))


def test_other_errors_are_not_the_kernels(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(segments, "propagate_keys", fail)
    with pytest.raises(RuntimeError, match="launch failure"):
        paint_segments([GIVEN[0]], QUICK, "cpu")
    launch = within_triton(RuntimeError, "Triton Error [CUDA]: an illegal memory access")
    monkeypatch.setattr(segments, "propagate_keys", lambda *_: launch())
    with pytest.raises(RuntimeError, match="illegal memory access"):
        paint_segments([GIVEN[0]], QUICK, "cpu")


def freed(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None], kind: type[Exception]
) -> Exception:
    """The error that arrives when painting fails so; it holds none of what was taken."""
    taken = []

    def painted(blocks, *_):
        taken.extend(weakref.ref(block.frames_THWC) for block in blocks)
        fail()

    monkeypatch.setattr(segments, "propagate_keys", painted)
    gc.disable()
    try:
        with pytest.raises(kind) as caught:
            paint_segments([GIVEN[0]], QUICK, "cpu")
        assert [reference() for reference in taken] == [None]
        assert caught.value.__context__ is None
    finally:
        gc.enable()
    return caught.value
