"""Both chains of many segments, a frame further at each step: `fresco_core.propagation.chain`.

Chains are numbered by segment, that from the first key frame before that from the second. Longer
segments come first: the chains that still go on are the first ones.

Shape suffixes: K chains; H, W rows and columns; C = RGB; 2 = horizontal (x), vertical (y)
displacement in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fresco_core.propagation.gpu.batch_painter import BatchPainter
from fresco_core.propagation.gpu.block import Block
from fresco_core.propagation.gpu.guides import carry, edges
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.positions import positions


class Syntheses(NamedTuple):
    """What a step has painted, by chain: uint8 pictures and float32 errors."""

    images_KHWC: Tensor
    errors_KHW: Tensor


def propagate_keys(
    blocks: Sequence[Block], options: PropagationOptions, on_frame: Callable[[], None]
) -> list[Syntheses]:
    """Paint the frames between of blocks of one size, the longest first; a result for each step.

    Nothing is asked of the device on the way.
    """
    keys_KHWC = torch.stack([key for block in blocks for key in block.keys])
    sources_KHWC = torch.stack([source for block in blocks for source in block.sources])
    position_HWC = torch.from_numpy(positions(*keys_KHWC.shape[1:3]))
    positions_KHWC = position_HWC.to(keys_KHWC.device).expand_as(keys_KHWC).contiguous()
    painter = BatchPainter(
        keys_KHWC,
        [sources_KHWC, edges(sources_KHWC), keys_KHWC, positions_KHWC],
        [options.colour, options.edge, options.temporal, options.positional],
        patch=options.patch,
        uniformity=options.uniformity,
    )
    # The temporal guide and the positional one go the same way.
    carried = torch.cat([keys_KHWC, positions_KHWC], -1)
    effort = options.device_effort
    results = []
    for number in range(blocks[0].between):
        steps = [step for block in blocks if block.between > number for step in block.steps(number)]
        frames_KHWC = torch.stack([step.frame_HWC for step in steps])
        carried = carry(
            carried[: len(steps)],
            torch.stack([step.flow_2HW for step in steps]).float(),
            torch.stack([step.back_2HW for step in steps]).float(),
        )
        temporal_KHWC, positions_KHWC = (part.contiguous() for part in carried.split(3, -1))
        targets = [frames_KHWC, edges(frames_KHWC), temporal_KHWC, positions_KHWC]
        chains = torch.arange(len(steps), device=frames_KHWC.device)
        result = Syntheses(*painter.paint(targets, effort, options.seed, chains=chains))
        results.append(result)
        carried = torch.cat([result.images_KHWC, positions_KHWC], -1)
        for _ in steps:
            on_frame()
    return results
