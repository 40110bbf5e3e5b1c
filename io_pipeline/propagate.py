"""Propagate: a segment's two key frames -> the frames between. Needs no torch.

Shapes: T frames of a segment, both key frames included, H x W working size, RGB.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.propagation import PropagationOptions, propagate
from io_pipeline.blocks import Block
from io_pipeline.pace import Pace
from io_pipeline.window import Window
from io_pipeline.worker import Report

Frame = NDArray[np.uint8]
Flows = NDArray[np.float32]


class Propagate:
    """Carries the key frames of a segment to the frames between, within a window's block."""

    def __call__(
        self,
        window: Window,
        segment: int,
        options: PropagationOptions,
        block: Block,
        report: Report,
    ) -> None:
        """Fill a segment's part of ``results``.

        Reads ``frames``, ``keys`` and, where others have found them, ``flows``.
        """
        first, last = window.segments[segment]
        count = last - first - 1
        if count == 0:
            return
        pace = Pace(report, "propagate", 3 * count)
        block["results"][first + 1 : last] = propagate(
            block["frames"][first : last + 1],
            *key_frames(window, segment, block),
            *self._flows(block, first, last),
            options=options,
            on_frame=pace.one_more,
        )

    def search(self, window: Window, segment: int, block: Block, report: Report) -> None:
        """Fill a segment's part of ``flows``."""
        first, last = window.segments[segment]
        report("flow", 0, 1)
        frames_THWC = block["frames"][first : last + 1]
        found = self._search(frames_THWC[:-1], frames_THWC[1:])
        for side, flow in enumerate(found):
            block["flows"][side, first:last] = flow

    def _flows(self, block: Block, first: int, last: int) -> tuple[Flows, Flows]:
        """Flows of neighbouring frames, forward and backward (T-1,2,H,W)."""
        if "flows" in block:
            forward, backward = block["flows"][:, first:last].astype(np.float32)
            return forward, backward
        frames_THWC = block["frames"][first : last + 1]
        return self._search(frames_THWC[:-1], frames_THWC[1:])

    @cached_property
    def _search(self) -> InverseSearch:
        return InverseSearch()


def key_frames(window: Window, segment: int, block: Block) -> tuple[Frame, Frame]:
    """The two translated key frames of a segment, each (H,W,3) uint8."""
    # The first window has no key frame before it: its first segment begins at its first one.
    key = segment + (1 if window.index == 0 else 0)
    return block["keys"][key], block["keys"][key + 1]
