"""Windows of a made-up clip, and how tasks about them are done in this process."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fresco_core.keyframes import batch_key_frames
from io_pipeline.blocks import Block
from io_pipeline.window import Window
from tests.fresco_core.scenes import panning

HEIGHT, WIDTH = 64, 128


def clip(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Frames (count,H,W,3) of a panning camera."""
    return panning(count, HEIGHT, WIDTH, step=3, seed=seed)


def cut_clip(
    key_numbers: tuple[int, ...],
    batch_size: int,
    *,
    steps: int = 2,
    controls: int = 1,
    flows: bool = False,
    matched: bool = False,
) -> list[Window]:
    """The windows of a clip whose last frame is its last key frame; ``matched``: saliency too."""
    batches = batch_key_frames(key_numbers, batch_size)
    firsts = [0, *(batch.new[-1] for batch in batches)]
    cut = [
        Window(i, len(batches), firsts[i], batch.new, HEIGHT, WIDTH, steps, controls, flows)
        for i, batch in enumerate(batches)
    ]
    return [replace(window, matched=matched, salient=matched) for window in cut]


def read(window: Window, frames_THWC: NDArray[np.uint8]) -> Block:
    """A window's block with its frames in it."""
    block = Block.create(window.layout())
    block.allocate()
    block["frames"][:] = frames_THWC[window.first_frame : window.key_numbers[-1] + 1]
    if "first_frame" in block:
        block["first_frame"][:] = frames_THWC[0]
    return block


class Reports(list[tuple[str, int, int]]):
    """Remembers what is reported."""

    def __call__(self, phase: str, done: int, count: int) -> None:
        self.append((phase, done, count))

    def of(self, phase: str) -> list[tuple[int, int]]:
        """What was reported of a phase."""
        return [(done, count) for name, done, count in self if name == phase]
