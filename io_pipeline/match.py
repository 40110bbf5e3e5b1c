"""Match: a window's key frames -> flows of their ring pairs, and what is salient. Needs no torch.

Shapes: N key frames of a batch, the carried ones included, H x W working size, RGB.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.saliency.camera import unlike_camera
from io_pipeline.blocks import Block
from io_pipeline.window import Window


class Match:
    """Finds what a device would else find before it translates, to the last bit."""

    def __init__(self) -> None:
        self._search = InverseSearch()

    def __call__(self, window: Window, pair: int, block: Block) -> None:
        """Fill one ring pair's part of ``ring_flows`` and, where it is wanted, of ``salient``.

        Every frame is told by its flow towards the next one, the last by that towards the one
        before, as `fresco_core.saliency.motion.nearest_flows` has it.
        """
        first, second = (_key_frame(window, block, i % window.ring) for i in (pair, pair + 1))
        flows_2HW2 = block["ring_flows"][:, pair]
        for flow_HW2, flow_12HW in zip(
            flows_2HW2, self._search(first[None], second[None]), strict=True
        ):
            flow_HW2[:] = flow_12HW[0].transpose(1, 2, 0)
        last = window.ring - 1
        salient_Nhw = block.get("salient")
        if salient_Nhw is not None and pair < last:
            salient_Nhw[pair] = unlike_camera(flows_2HW2[0])
            if pair == last - 1:
                salient_Nhw[last] = unlike_camera(flows_2HW2[1])


def _key_frame(window: Window, block: Block, number: int) -> NDArray[Any]:
    """A key frame of the window's ring (H,W,3): the two carried ones, if any, and the new ones."""
    if window.index:
        if number == 0:
            return np.asarray(block["first_frame"])
        number -= 1
    offsets = (0, *window.key_offsets) if window.index else window.key_offsets
    return np.asarray(block["frames"][offsets[number]])
