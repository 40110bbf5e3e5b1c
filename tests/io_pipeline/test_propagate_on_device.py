"""Segments of a window's block that a device propagates together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fresco_core.propagation import PropagationOptions
from io_pipeline import propagate_on_device
from io_pipeline.blocks import Block
from io_pipeline.propagate import Propagate
from io_pipeline.propagate_on_device import propagate_segments
from io_pipeline.tasks import PropagateSegments
from io_pipeline.window import Window
from io_pipeline.worker import NoMemoryToPropagate
from tests.io_pipeline.windows import Reports, clip, cut_clip, read

FRAMES = clip(11)
KEYS = (0, 2, 3, 6, 8, 10)
OPTIONS = PropagationOptions(votes=3)
CPU = torch.device("cpu")


def translated(window: Window) -> Block:
    block = read(window, FRAMES)
    block["keys"][:] = 255 - FRAMES[[window.first_frame, *window.key_numbers]]
    pairs = np.arange(window.first_frame, window.key_numbers[-1])
    block["flows"][:] = (
        pairs[None, :, None, None, None] * np.array([1, -1])[:, None, None, None, None]
    )
    return block


def task(window: Window, *segments: int) -> PropagateSegments:
    return PropagateSegments(window, segments, OPTIONS, 1 << 20)


@pytest.mark.parametrize("index", [0, 1])
def test_each_segment_gets_what_belongs_to_it(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    window = cut_clip(KEYS, 4, flows=True)[index]
    block, seen = translated(window), []

    def paint(
        arguments: Sequence[Any], options: PropagationOptions, device: Any, memory: int, tell: Any
    ) -> Any:
        seen.extend(arguments)
        assert (options, device, memory) == (OPTIONS, CPU, 1 << 20)
        tell()
        return [np.full_like(frames[1:-1], 50 + len(frames)) for frames, *_ in arguments]

    monkeypatch.setattr(propagate_on_device, "_paint", paint)
    reports = Reports()
    count = len(window.segments)
    propagate_segments(task(window, *range(count)), block, CPU, reports)
    chosen = [pair for pair in window.segments if pair[1] - pair[0] > 1]
    assert len(seen) == len(chosen) == (1 if index == 0 else 3)
    for (first, last), (frames, one, two, forward, backward) in zip(chosen, seen, strict=True):
        begin = window.first_frame + first
        assert np.array_equal(frames, FRAMES[begin : window.first_frame + last + 1])
        assert np.array_equal(one, 255 - frames[0])
        assert np.array_equal(two, 255 - frames[-1])
        assert forward[:, 0, 0, 0].tolist() == list(range(begin, window.first_frame + last))
        assert np.array_equal(backward, -forward)
        assert (block["results"][first + 1 : last] == 50 + len(frames)).all()
        assert not block["results"][[first, last]].any()
    assert reports[0] == ("propagate", 0, 3 * sum(last - first - 1 for first, last in chosen))


def test_nothing_between_key_frames_is_nothing_to_do() -> None:
    (window,) = cut_clip((0, 1), 4, flows=True)
    propagate_segments(task(window, 0), translated(window), CPU, Reports())


def test_no_memory_is_told_and_nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def paint(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("tried to allocate 3 GiB\nmore of it")

    monkeypatch.setattr(propagate_on_device, "_paint", paint)
    (window,) = cut_clip((0, 3), 4, flows=True)
    block = translated(window)
    with pytest.raises(NoMemoryToPropagate, match=r"^tried to allocate 3 GiB$") as caught:
        propagate_segments(task(window, 0), block, CPU, Reports())
    assert caught.value.__context__ is None
    assert not block["results"].any()


def test_what_a_core_makes_is_near() -> None:
    """With nothing put in the place of what paints."""
    (window,) = cut_clip((0, 2), 4)
    window = replace(window, searched=True)
    options, blocks = PropagationOptions(votes=2, sweeps=1), []
    for _ in range(2):
        block = read(window, FRAMES)
        block["keys"][1:] = 255 - FRAMES[[0, 2]]
        Propagate().search(window, 0, block, Reports())
        blocks.append(block)
    chosen = PropagateSegments(window, (0,), options, 1 << 30)
    propagate_segments(chosen, blocks[0], CPU, Reports())
    Propagate()(window, 0, options, blocks[1], Reports())
    found, near = (block["results"][1].astype(int) for block in blocks)
    assert np.abs(found - near).mean() < np.abs(found - (255 - FRAMES[0])).mean() / 2
