"""Merging the frames of both chains of many segments: `fresco_core.propagation.blending`.

Shape suffixes: N frames between a segment's key frames; K frames of any; H, W rows and columns;
C = RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fresco_core.propagation.gpu import histogram
from fresco_core.propagation.gpu.block import Block
from fresco_core.propagation.gpu.chains import Syntheses
from fresco_core.propagation.gpu.parts import in_parts
from fresco_core.propagation.gpu.poisson import PoissonFusion
from fresco_core.propagation.gpu.selection import assemble, choose, steady
from fresco_core.propagation.options import PropagationOptions


def merge(
    blocks: Sequence[Block],
    results: Sequence[Syntheses],
    options: PropagationOptions,
    fusion: PoissonFusion | None,
    on_frame: Callable[[], None],
) -> Tensor:
    """The frames between of all blocks, one block after the other, uint8 (K,H,W,C).

    ``results`` as of `fresco_core.propagation.gpu.chains.propagate_keys`, for the same blocks;
    ``fusion`` where the options ask for it.
    """
    masks = _masks(blocks, results)
    # Number of the block, of the frame in it, and of the step that has painted that frame from the
    # second key frame: this chain went backwards in time.
    places = [(n, i, b.between - 1 - i) for n, b in enumerate(blocks) for i in range(b.between)]
    first_KHWC = torch.stack([results[i].images_KHWC[2 * n] for n, i, _ in places])
    second_KHWC = torch.stack([results[j].images_KHWC[2 * n + 1] for n, _, j in places])
    masks_KHW = torch.stack([masks[i][n] for n, i, _ in places])
    weights_K = torch.cat([block.weights_N for block in blocks])

    def merged(first: Tensor, second: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        return merge_frames(first, second, mask, weights, options, fusion)

    merged_KHWC = in_parts(merged, first_KHWC, second_KHWC, masks_KHW, weights_K)
    for _ in merged_KHWC:
        on_frame()
    return merged_KHWC


def _masks(blocks: Sequence[Block], results: Sequence[Syntheses]) -> list[Tensor]:
    """What comes from the second key frame (True), by time, of the blocks that are so long."""
    masks: list[Tensor] = []
    for i in range(blocks[0].between):
        active = [(n, block) for n, block in enumerate(blocks) if block.between > i]
        chosen = choose(
            torch.stack([results[i].errors_KHW[2 * n] for n, _ in active]),
            torch.stack([results[b.between - 1 - i].errors_KHW[2 * n + 1] for n, b in active]),
            torch.stack([block.weights_N[i] for _, block in active]),
        )
        if masks:
            flows = torch.stack([block.backward_flows[i] for _, block in active]).float()
            chosen = steady(chosen, masks[-1][: len(active)], flows)
        masks.append(chosen)
    return masks


def merge_frames(
    first_KHWC: Tensor,
    second_KHWC: Tensor,
    masks_KHW: Tensor,
    weights_K: Tensor,
    options: PropagationOptions,
    fusion: PoissonFusion | None,
) -> Tensor:
    """One frame from two: chosen pixels, histogram blend, Poisson fusion, as the options say."""
    frames_KHWC = assemble(first_KHWC, second_KHWC, masks_KHW)
    if options.blend == "histogram":
        frames_KHWC = histogram.blend(first_KHWC, second_KHWC, frames_KHWC, weights_K)
    if fusion is not None:
        frames_KHWC = fusion.fuse(frames_KHWC, first_KHWC, second_KHWC, masks_KHW)
    return frames_KHWC
