"""What the CPU pool finds of a window's key frames is what a device would find."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fresco_core.flow import load_flow
from fresco_core.saliency.motion import motion_saliency, nearest_flows
from io_pipeline.blocks import Block
from io_pipeline.match import Match
from io_pipeline.window import Window
from tests.fresco_core.scenes import texture
from tests.io_pipeline.windows import HEIGHT, WIDTH, clip, cut_clip, read

KEYS = (0, 2, 4, 5, 7, 9)


def moving(count: int) -> NDArray[np.uint8]:
    """A panning camera, and something that moves unlike it."""
    frames = clip(count) // 2
    mover = 255 - texture(30, 30, seed=9) // 3
    for i, frame in enumerate(frames):
        frame[20:50, 5 + 8 * i : 35 + 8 * i] = mover
    return frames


FRAMES = moving(10)


def matched(window: Window, order: int = 1) -> Block:
    """A window's block with all its pairs matched, one after the other or backwards."""
    block, match = read(window, FRAMES), Match()
    for pair in range(window.ring_pairs)[::order]:
        match(window, pair, block)
    return block


@pytest.mark.parametrize("batch_size", [3, 5, 8])
def test_is_what_the_translator_finds(batch_size: int) -> None:
    search = load_flow("dis")
    for window in cut_clip(KEYS, batch_size, matched=True):
        carried = [0, window.first_frame] if window.index else []
        ring = FRAMES[[*carried, *window.key_numbers]]
        frames = torch.from_numpy(ring).permute(0, 3, 1, 2)
        flows = search(frames, frames.roll(-1, 0))
        block = matched(window)
        for found, flow in zip(block["ring_flows"], flows, strict=True):
            assert np.array_equal(found, flow.permute(0, 2, 3, 1))
        salient = motion_saliency(nearest_flows(*flows))[:, 0]
        assert salient.any()
        assert np.array_equal(block["salient"], salient)


def test_pairs_do_not_depend_on_each_other() -> None:
    """They are matched in any order, by any process."""
    for window in cut_clip(KEYS, 4, matched=True):
        forwards, backwards = matched(window), matched(window, -1)
        for name in ("ring_flows", "salient"):
            assert np.array_equal(forwards[name], backwards[name])


def test_flows_alone_where_saliency_is_not_wanted() -> None:
    window = Window(0, 1, 0, (0, 2), HEIGHT, WIDTH, 2, 0, False, matched=True)
    block = matched(window)
    assert block["ring_flows"].any()
    assert "salient" not in block
