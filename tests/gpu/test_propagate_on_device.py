"""Segments of a window as a device's process propagates them. Skipped where there is no GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.propagation import PropagationOptions
from io_pipeline.blocks import Block
from io_pipeline.propagate import Propagate
from io_pipeline.propagate_on_device import propagate_segments
from io_pipeline.tasks import PropagateSegments
from io_pipeline.window import Window
from io_pipeline.worker import NoMemoryToPropagate
from tests.io_pipeline.windows import Reports, clip, cut_clip, read

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

FRAMES = clip(11)
KEYS = (0, 2, 3, 6, 8, 10)
OPTIONS = PropagationOptions()


def device() -> torch.device:
    return torch.device("cuda")


def window() -> Window:
    return replace(cut_clip(KEYS, 6)[0], searched=True)


def translated() -> Block:
    """Key frames are the input's, turned over; its flows are searched."""
    block = read(window(), FRAMES)
    numbers = (window().first_frame, *window().key_numbers)
    block["keys"][:] = 255 - FRAMES[list(numbers)]
    for segment in range(len(window().segments)):
        Propagate().search(window(), segment, block, Reports())
    return block


def propagated(*groups: tuple[int, ...], memory: int = 4 << 30) -> np.ndarray:
    """What becomes of the segments, group by group."""
    block = translated()
    for group in groups:
        task = PropagateSegments(window(), group, OPTIONS, memory)
        propagate_segments(task, block, device(), Reports())
    return block["results"].copy()


def test_is_near_what_cores_make() -> None:
    found, block = propagated(tuple(range(len(window().segments)))), translated()
    for segment in range(len(window().segments)):
        Propagate()(window(), segment, OPTIONS, block, Reports())
    inverse = 255 - FRAMES[: len(found)]
    filled = [i for i in range(len(found)) if block["results"][i].any()]
    assert [i for i in range(len(found)) if found[i].any()] == filled
    errors = [
        np.abs(made[filled].astype(int) - inverse[filled]).mean()
        for made in (found, block["results"])
    ]
    assert errors[0] < 1.1 * errors[1] + 0.5


def test_does_not_depend_on_what_goes_with_it() -> None:
    count = len(window().segments)
    together, alone = propagated(tuple(range(count))), propagated(*[(i,) for i in range(count)])
    assert np.array_equal(together, alone)


def test_no_memory_is_told_and_the_process_goes_on() -> None:
    with pytest.raises(NoMemoryToPropagate):
        propagated((0,), memory=1 << 20)
    before = torch.cuda.memory_allocated()
    assert propagated((0,)).any()
    assert torch.cuda.memory_allocated() <= before + (128 << 20)  # tables of colours stay
