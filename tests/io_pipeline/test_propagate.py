"""Segments of a window's block: which frames, which key frames, which flows."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.flow import load_flow
from fresco_core.propagation import PropagationOptions, propagate
from io_pipeline import pace
from io_pipeline.blocks import Block
from io_pipeline.propagate import Propagate
from io_pipeline.window import Window
from tests.io_pipeline.windows import Reports, clip, cut_clip, read

QUICK = PropagationOptions(votes=2, sweeps=1)
FRAMES = clip(11)
KEYS = (0, 2, 3, 6, 8, 10)


def translated(window: Window) -> Block:
    """A block whose key frames are its frames turned over."""
    block = read(window, FRAMES)
    numbers = (window.first_frame, *window.key_numbers)
    block["keys"][:] = 255 - FRAMES[list(numbers)]
    if window.index == 0:
        block["keys"][0] = 0  # there is none before
    return block


def done(window: Window, segment: int, block: Block | None = None) -> tuple[Block, Reports]:
    block, reports = block or translated(window), Reports()
    Propagate()(window, segment, QUICK, block, reports)
    return block, reports


def expected(first: int, last: int) -> np.ndarray:
    """By clip frame numbers, with flows of tensors."""
    frames = FRAMES[first : last + 1]
    frames_T3HW = torch.from_numpy(frames).permute(0, 3, 1, 2)
    flows = load_flow("dis")(frames_T3HW[:-1], frames_T3HW[1:])
    keys = 255 - frames[[0, -1]]
    return propagate(frames, *keys, *(flow.numpy() for flow in flows), options=QUICK)


def test_every_frame_between_key_frames_is_filled_once() -> None:
    for window in cut_clip(KEYS, 4):
        block = translated(window)
        for segment in range(len(window.segments)):
            done(window, segment, block)
        for a, b in itertools.pairwise(KEYS):
            if b - a > 1 and window.first_frame <= a and b <= window.key_numbers[-1]:
                part = block["results"][a + 1 - window.first_frame : b - window.first_frame]
                assert np.array_equal(part, expected(a, b))
        for offset in (0, *window.key_offsets):
            assert not block["results"][offset].any()


def test_neighbouring_key_frames_have_nothing_between() -> None:
    (window,) = cut_clip((0, 1), 4)
    block, reports = done(window, 0)
    assert not block["results"].any()
    assert not reports


def test_progress_is_told_frame_by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    (window,) = cut_clip((0, 4), 4)
    monkeypatch.setattr(pace, "PACE", 0)
    _, reports = done(window, 0)
    assert reports == [("propagate", n, 9) for n in range(10)]


def test_frames_between_look_like_the_key_frames_moved() -> None:
    (window,) = cut_clip((0, 3), 4)
    block, _ = done(window, 0)
    inverse = 255 - FRAMES[:4]
    error = np.abs(block["results"][1:3].astype(int) - inverse[1:3]).mean()
    copied = np.abs(inverse[[0, 0]].astype(int) - inverse[1:3]).mean()
    assert error < 0.5 * copied


def test_flows_of_the_device_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = cut_clip(KEYS, 4, flows=True)
    for window in (first, second):
        block = translated(window)
        count = window.frame_count - 1
        block["flows"][0] = np.arange(count)[:, None, None, None]
        block["flows"][1] = -block["flows"][0]
        found = []

        def take(frames, one, two, forward, backward, **options):  # type: ignore[no-untyped-def]
            found.append((forward, backward))  # noqa: B023
            return frames[1:-1]

        monkeypatch.setattr("io_pipeline.propagate.propagate", take)
        for segment, (begin, end) in enumerate(window.segments):
            if end - begin < 2:
                continue
            done(window, segment, block)
            forward, backward = found.pop()
            assert forward.dtype == backward.dtype == np.float32
            assert forward[:, 0, 0, 0].tolist() == list(range(begin, end))
            assert np.array_equal(backward, -forward)


def test_flows_searched_before_are_what_would_be_searched() -> None:
    (window,) = cut_clip((0, 3, 4), 4)
    window = replace(window, searched=True)
    block, reports = translated(window), Reports()
    propagate = Propagate()
    for segment in range(2):
        propagate.search(window, segment, block, reports)
    frames_T3HW = torch.from_numpy(FRAMES[:5]).permute(0, 3, 1, 2)
    flows = load_flow("dis")(frames_T3HW[:-1], frames_T3HW[1:])
    for found, flow in zip(block["flows"], flows, strict=True):
        assert np.array_equal(found, flow.numpy().astype(np.float16))
    done(window, 0, block)
    difference = np.abs(block["results"][1:3].astype(int) - expected(0, 3)).mean()
    assert difference < 1  # of rounded flows
    assert reports == [("flow", 0, 1)] * 2


def test_needs_no_torch() -> None:
    program = """
import sys
from fresco_core.propagation import PropagationOptions
from io_pipeline import pace
from io_pipeline.propagate import Propagate
from io_pipeline.window import Window
import numpy as np
block = {name: np.zeros((4, 32, 32, 3), np.uint8) for name in ("frames", "keys", "results")}
window = Window(0, 1, 0, (0, 3), 32, 32, 1, 0, False)
options = PropagationOptions(votes=1, sweeps=1)
Propagate()(window, 0, options, block, lambda *_: None)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
